"""From labelled tables to a compact model."""
