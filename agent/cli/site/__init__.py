"""Verbs about the site file."""
