"""The verbs of `checkmeter utility`."""
