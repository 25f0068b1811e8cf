"""Classifiers of figure 9 of 1998 in closed form or by memory, which are not trained by steps."""
