"""Simulated DL/T 645 meters."""
