"""One simulated meter."""
