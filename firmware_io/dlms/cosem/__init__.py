"""What a meter's objects mean: registers, profiles, clocks."""
