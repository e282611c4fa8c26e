"""A made-up fleet to load a backend with."""
