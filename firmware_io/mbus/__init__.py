"""Wired M-Bus (EN 13757-2, -3): electricity, heat, water and gas meters on a two-wire bus that feeds them."""
