"""Whose energy is missing: a posterior over the flats and none of them."""
