"""Weights that the tests of this folder share."""

import numpy as np
import pytest
import torch_networks


@pytest.fixture(scope="session")
def entries():
    """A state_dict() of LeNet-5 with large values, so that images have different answers."""
    rng, shapes = np.random.default_rng(1), torch_networks.LENET5_SHAPES
    return {name: rng.normal(0, 2, shape).astype(np.float32) for name, shape in shapes.items()}
