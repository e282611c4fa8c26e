"""What the running agent shows of itself, locally."""
