"""From a channel to one meter to an association."""
