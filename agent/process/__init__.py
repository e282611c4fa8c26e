"""What every process needs of its host: clock, heartbeat, logging, memory, exit codes, sd_notify(3)."""
