"""One DLMS meter: how it is read, and how an unknown one is found."""
