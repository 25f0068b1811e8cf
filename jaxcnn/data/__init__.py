"""Datasets, and the preprocessing of their images."""
