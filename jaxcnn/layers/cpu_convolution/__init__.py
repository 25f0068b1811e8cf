"""Fast forms of a convolution on a CPU; internal to `convolution.py`."""
