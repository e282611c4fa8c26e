"""MQTT v5 for the backend: packets without I/O, and one connection."""
