"""The application layer: services to octets and back."""
