"""Modbus RTU and TCP: meters whose registers a device profile describes, and which have to prove that it fits."""
