"""The SQLite store: what the gateway must not forget."""
