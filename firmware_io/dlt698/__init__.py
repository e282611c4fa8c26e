"""DL/T 698.45, read-only: the object protocol of newer Chinese electricity meters."""
