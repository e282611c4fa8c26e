"""From registers read one after another to energies between common boundaries."""
