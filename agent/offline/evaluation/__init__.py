"""How well the detection does, on buildings whose truth is known."""
