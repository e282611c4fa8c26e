"""Recorded registers through the service's own step."""
