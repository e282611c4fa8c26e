"""Verbs for a technician at the meters."""
