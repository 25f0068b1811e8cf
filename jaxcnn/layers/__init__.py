"""The arithmetic of a CNN: pure functions that import no other package of jaxcnn."""
