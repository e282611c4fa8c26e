"""DLMS/COSEM: frames, services, sessions and meters."""
