"""One zone watched: the order of learning, searching, alarm and suspects."""
