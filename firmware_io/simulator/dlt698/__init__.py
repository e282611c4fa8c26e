"""Simulated DL/T 698.45 meters."""
