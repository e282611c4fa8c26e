"""Verbs for the workstation and the laboratory: nothing here is needed on a gateway."""
