"""What the utility asks of a gateway: commands, configurations and models, checked and carried out once."""
