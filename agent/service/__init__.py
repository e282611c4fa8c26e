"""The service: the object graph of one configuration, and the main thread."""
