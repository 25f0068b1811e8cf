"""Fast convolutions on a CPU; internal to `convolution.py`."""
