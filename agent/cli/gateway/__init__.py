"""Verbs for whoever operates a gateway."""
