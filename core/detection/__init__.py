"""That energy is missing, how much, and since when."""
