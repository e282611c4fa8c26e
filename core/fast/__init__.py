"""Large losses within minutes: short rows beside those that are judged, in a pyramid that telescopes."""
