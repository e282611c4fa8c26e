"""The physics of a simulated building."""
