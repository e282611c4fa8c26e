"""What a zone will draw in the next two days: load in quantiles, peak and trough, from its past and the weather."""
