"""Meters that speak the real protocol on a pty, a serial port or TCP, with physics and faults of one's choice."""
