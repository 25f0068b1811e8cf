"""Networks that the page computes, and those that are refused with a reason."""

import base64
import dataclasses
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import random_params

from jaxcnn.data.transforms import Affine, RandomCrop, Resize
from jaxcnn.demo.describe import describe
from jaxcnn.errors import UserError
from jaxcnn.interop.pretrained import load_pretrained
from jaxcnn.layers.pooling import avg_pool, lp_pool, max_pool
from jaxcnn.models import MODELS
from jaxcnn.models.lenet import LeNet5
from jaxcnn.models.lenet_1998 import squash


@pytest.fixture(scope="module")
def trained():
    return load_pretrained("lenet5-mnist")


def with_model(trained, **fields):
    model = LeNet5(**fields)
    return trained._replace(model=model, params=random_params(model, (28, 28, 1)))


def test_description_counts_the_parameters_of_the_paper():
    layers = describe(load_pretrained("lenet5-1998-mnist"))["layers"]
    counts = {layer["name"]: layer.get("parameters", 0) for layer in layers}
    assert counts == {
        **{"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164},
        "output": 0,
    }


@pytest.mark.parametrize(
    ("function", "name"),
    [(nn.sigmoid, "sigmoid"), (jnp.tanh, "tanh"), (squash, "squash"), (nn.softplus, "softplus")],
)
def test_activations_are_recognized_by_their_values(function, name, trained):
    activation = describe(with_model(trained, activation=function))["layers"][0]["activation"]
    assert activation["name"] == name
    assert ("table" in activation) == (name == "softplus")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, window: max_pool(x, window), {"pool": "max"}),
        (partial(avg_pool, padding="SAME"), {"pool": "average"}),
        (partial(lp_pool, p=1.5), {"pool": "lp", "p": 1.5}),
    ],
)
def test_pools_are_recognized_by_their_values(function, expected, trained):
    layer = describe(with_model(trained, pool=function))["layers"][1]
    assert {key: layer[key] for key in expected} == expected


class Changed(LeNet5):
    """A network that may compute anything."""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": nn.softmax}, "mixes the elements"),
        ({"activation": jnp.sign}, "not continuous"),
        ({"activation": jnp.log}, "not continuous"),
        ({"pool": partial(max_pool, strides=1, padding="SAME")}, "is none of average, max, min"),
        ({"pool": lambda x, window: 2 * avg_pool(x, window)}, "is none of average, max, min"),
    ],
)
def test_other_activations_and_pools_are_refused(fields, message, trained):
    with pytest.raises(UserError, match=message):
        describe(trained._replace(model=LeNet5(**fields)))


@pytest.mark.parametrize("model", [Changed(), MODELS["alexnet-32"]()])
def test_other_networks_are_refused(model, trained):
    with pytest.raises(UserError, match=r"expected one of LeNet's family \(LeNet5, "):
        describe(trained._replace(model=model))


@pytest.mark.parametrize("shape", [(28, 28, 3), (32, 32, 1)])
def test_images_that_cannot_be_drawn_are_refused(shape, trained):
    info = dataclasses.replace(trained.info, image_shape=shape)
    with pytest.raises(UserError, match=r"expected \(28, 28, 1\), grey"):
        describe(trained._replace(info=info))


def test_random_transforms_are_ignored_and_others_refused(trained):
    def with_transforms(*transforms):
        return trained._replace(config=dataclasses.replace(trained.config, transforms=transforms))

    random = (RandomCrop(28, padding=4), Affine(degrees=10.0))
    assert describe(with_transforms(*random)) == describe(trained)
    with pytest.raises(UserError, match="transforms of lenet5-mnist change test images"):
        describe(with_transforms(Resize(32), RandomCrop(28)))


def test_numbers_are_those_of_the_network(trained):
    description = describe(trained)
    offset, length = description["layers"][0]["weights"]
    numbers = np.frombuffer(base64.b64decode(description["numbers"]), "<f4")
    np.testing.assert_array_equal(
        numbers[offset : offset + length], np.ravel(trained.params["C1"]["kernel"])
    )
    assert len(numbers) == 61_706
