"""Trained networks from and to other systems."""
