"""The questions that a utility asks of its fleet."""
