"""A network layer by layer, beside its paper's figures."""
