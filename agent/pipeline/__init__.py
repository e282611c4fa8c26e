"""The pipeline thread: samples in, alerts and checkpoints out."""
