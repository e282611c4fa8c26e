"""Secrets by reference, and Ed25519 signatures."""
