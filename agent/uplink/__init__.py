"""The link to the broker: what is sent next, and the connection it goes over."""
