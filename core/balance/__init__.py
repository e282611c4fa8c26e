"""The residual of a zone, and the model of what a zone loses without theft."""
