"""Simulated lines, and the stations on them."""
