"""From the broker into the fleet's store."""
