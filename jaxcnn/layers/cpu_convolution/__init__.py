"""The convolution's forms on a CPU; internal to convolution.py."""
