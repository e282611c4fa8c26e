"""Metered buildings made from physics, wider than any test: what the posterior's model is trained on."""
