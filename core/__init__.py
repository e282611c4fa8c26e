"""Numbers only: intervals, balance, detection, attribution. No files, no clock, no threads, no network."""
