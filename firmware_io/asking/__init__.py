"""What the protocols share in which the master asks and the meter answers: one exchange, and whom to believe."""
