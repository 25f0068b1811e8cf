"""A network layer by layer, compared with its paper's figures."""
