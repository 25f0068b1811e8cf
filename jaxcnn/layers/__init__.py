"""The arithmetic of a CNN: pure functions, and nothing of this package but each other."""
