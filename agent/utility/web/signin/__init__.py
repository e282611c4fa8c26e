"""Who asks: a reverse proxy says so, or an OpenID Connect provider does. It knows persons and roles, not pages."""
