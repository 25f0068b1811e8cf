"""A page with a trained LeNet inside: draw a digit and look at every layer."""
