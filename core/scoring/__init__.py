"""The compact model: features in, a probability for each sub-meter out."""
