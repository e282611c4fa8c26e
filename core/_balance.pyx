# cython: language_level=3
"""The balance kernel: residuals and sequential statistics."""
