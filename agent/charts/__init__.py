"""Charts as SVG text, for the evidence page, the commissioning and replay plots, and the utility's web page."""
