"""The bus threads: meters read in turn, samples into the pipeline's queue."""
