"""The site file: TOML in, one checked configuration out."""
