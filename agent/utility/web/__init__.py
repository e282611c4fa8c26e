"""The fleet as a web page: read by analysts, managers and inspectors; server-rendered, and whole without script."""
