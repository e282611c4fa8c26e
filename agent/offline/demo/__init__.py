"""The demonstration: real processes on one machine."""
