"""Inside a trained network: maps, shifts and their pictures."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers import CONVOLUTIONAL

from jaxcnn.evaluation import probes
from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.training.step import create_state


def state_of(name):
    create = functools.partial(
        create_state, MODELS[name](num_classes=10), optax.sgd(1.0), IMAGE_SHAPES[name]
    )
    return jax.jit(create)(jax.random.key(0))


def test_feature_maps_are_in_the_order_of_the_layers():
    state = state_of("lenet5-1998")
    images = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    maps = probes.feature_maps(state, images)
    assert [(name, x.shape) for name, x in maps.items()] == [
        ("C1", (2, 28, 28, 6)),
        ("S2", (2, 14, 14, 6)),
        ("C3", (2, 10, 10, 16)),
        ("S4", (2, 5, 5, 16)),
    ]  # C5's maps are of 1x1
    framed = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=-0.1)
    conv = nn.Conv(6, (5, 5), padding="VALID")
    expected = conv.apply({"params": state.params["C1"]}, framed)
    chex.assert_trees_all_close(maps["C1"], expected, atol=1e-5)


def test_layer_outputs_holds_pools_and_normalizations_as_the_network_computes_them():
    state = state_of("cuda-convnet-18pct")
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    outputs = probes.layer_outputs(state, images)
    logits = jax.jit(functools.partial(state.apply_fn, train=False))(
        {"params": state.params}, images
    )
    names = ("conv1 pool1 norm1 conv2 pool2 norm2 conv3 pool3 fc10").split()
    assert list(outputs) == names
    padding = ((0, 0), (0, 1), (0, 1), (0, 0))  # windows may reach beyond the maps
    conv2 = jnp.pad(nn.relu(outputs["conv2"]), padding)
    expected = sum(
        conv2[:, i : i + 15 + 1 : 2, j : j + 15 + 1 : 2] for i in range(3) for j in range(3)
    )
    chex.assert_trees_all_close(outputs["pool2"][:, :7, :7], expected[:, :7, :7] / 9, rtol=1e-5)
    chex.assert_trees_all_close(outputs["fc10"], logits, rtol=1e-5)


def test_layer_outputs_of_a_network_that_is_no_chain_are_those_of_its_modules():
    class Residual(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            x = nn.Conv(4, (3, 3), name="conv1")(images)
            x = x + nn.relu(nn.Conv(4, (3, 3), name="conv2")(x))
            return nn.Dense(3, name="fc3")(x.reshape(len(x), -1))

    state = create_state(Residual(), optax.sgd(1.0), (8, 8, 1), jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    outputs = probes.layer_outputs(state, images)
    assert {name: x.shape for name, x in outputs.items()} == {
        **{"conv1": (2, 8, 8, 4), "conv2": (2, 8, 8, 4), "fc3": (2, 3)}
    }


# Without running them: on a CPU some take seconds.
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_feature_maps_begin_with_the_first_convolution(name):
    state = jax.eval_shape(functools.partial(state_of, name))
    shapes = {}

    def note(state, images):
        shapes.update({k: x.shape for k, x in probes.feature_maps(state, images).items()})

    image = jax.ShapeDtypeStruct((1, *IMAGE_SHAPES[name]), jnp.float32)
    jax.eval_shape(note, state, image)
    first, shape = next(iter(shapes.items()))
    *_, channels, features = state.params[first]["kernel"].shape
    assert channels == IMAGE_SHAPES[name][-1] and features == shape[-1]
    pools = [layer for layer in shapes if layer.startswith(("S", "H2", "pool"))]
    assert pools


def test_shift_fills_gray_with_zeros_and_color_with_its_edge():
    grey = np.array([[1, 2], [3, 4]], np.uint8).reshape(1, 2, 2, 1)
    assert probes.shift(grey, 1, 0)[0, ..., 0].tolist() == [[0, 0], [1, 2]]
    assert probes.shift(grey, -1, 1)[0, ..., 0].tolist() == [[0, 3], [0, 0]]
    colour = np.repeat(grey, 3, axis=-1)
    assert probes.shift(colour, 1, 0)[0, ..., 1].tolist() == [[1, 2], [1, 2]]
    assert probes.shift(colour, 0, -1)[0, ..., 1].tolist() == [[2, 2], [4, 4]]
    chex.assert_trees_all_equal(probes.shift(grey, 0, 0), grey)


def test_shift_accuracies_are_means_of_four_directions():
    images = np.zeros((2, 9, 9, 1), np.uint8)
    images[0, 4, 4] = 1  # in the middle; the other image is empty

    def predict(images):
        """Class 1 if there is light in the lower right quarter, the middle included."""
        light = images[:, 4:, 4:].any(axis=(1, 2, 3))
        return np.stack([~light, light], axis=1)

    accuracies = probes.shift_accuracies(predict, images, np.array([1, 0]))
    assert accuracies == [1.0, 0.75, 0.75, 0.75, 0.75]  # up and left, the first is lost
    assert probes.shift_accuracies(predict, images, np.array([1, 1]), max_pixels=1) == [0.5, 0.25]


class Channels(nn.Module):
    """A network whose gradients are known: class 0 is the mean of 2 a - b, class 1 that of b."""

    stride: int = 1

    @nn.compact
    def __call__(self, images, *, train=False):
        conv = nn.Conv(2, (1, 1), self.stride, use_bias=False, name="conv1")
        maps = nn.relu(conv(images))  # a and b
        means = maps.reshape(len(maps), -1, 2).mean(1)
        return nn.Dense(2, use_bias=False, name="fc2")(means)


def test_grad_cam_is_the_positive_part_of_the_weighted_maps():
    kernels = {"conv1": np.eye(2).reshape(1, 1, 2, 2), "fc2": np.array([[2.0, 0.0], [-1.0, 1.0]])}
    params = {name: {"kernel": jnp.asarray(k, jnp.float32)} for name, k in kernels.items()}
    state = create_state(Channels(), optax.sgd(1.0), (4, 4, 2), jax.random.key(0))
    state = state.replace(params=params)
    images = jax.random.normal(jax.random.key(1), (2, 4, 4, 2))  # a is the first channel, b second
    cams = probes.grad_cam(state, images, [0, 1], layer="conv1")
    a, b = np.moveaxis(np.maximum(images, 0), -1, 0)
    chex.assert_trees_all_close(cams[0], np.maximum(2 * a[0] - b[0], 0) / 16, rtol=1e-5)
    chex.assert_trees_all_close(cams[1], b[1] / 16, rtol=1e-5)
    strided = state.replace(apply_fn=Channels(2).apply)
    (cam,) = probes.grad_cam(strided, images[1:], [1], layer="conv1")
    assert cam.shape == (4, 4)  # from 2x2
    chex.assert_trees_all_close(cam[::3, ::3], b[1][::2, ::2] / 4, rtol=1e-5)


def test_occlusion_of_a_linear_model_is_the_sum_of_what_it_covers():
    rng = np.random.default_rng(0)
    image, weights = rng.normal(size=(5, 6, 2)), rng.normal(size=(5, 6, 2, 3))

    def predict(images):
        return np.einsum("nhwc,hwck->nk", images, weights)

    whole = (image[..., None] * weights).sum((0, 1, 2))
    products = np.pad((image[..., None] * weights)[..., 1].sum(2), 2)  # of class 1, in a frame
    lost = [[products[i + 1 : i + 4, j + 1 : j + 4].sum() for j in range(6)] for i in range(5)]
    found = probes.occlusion(predict, image, 1, size=3)
    np.testing.assert_allclose(found, whole[1] - np.array(lost))
    np.testing.assert_allclose(
        probes.occlusion(predict, image, 1, size=3, stride=2), found[::2, ::2]
    )
    everything = probes.occlusion(predict, image, 1, size=20, stride=6, fill=1.0)
    np.testing.assert_allclose(everything, [[weights[..., 1].sum()]])


def test_occlusion_by_an_even_square_extends_up_and_left():
    light = np.zeros((3, 3, 1))
    light[1, 1] = 1
    found = probes.occlusion(lambda images: images.sum((1, 2)), light, 0, size=2)
    assert found.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_principal_components_are_those_of_the_covariance():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 4)) * [1, 5, 0.1, 2] + 7
    coordinates, fractions = probes.principal_components(features)
    variances, directions = np.linalg.eigh(np.cov(features.T))
    expected = (features - features.mean(0)) @ directions[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(coordinates), np.abs(expected), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fractions, variances[[-1, -2]] / variances.sum())
    assert (coordinates[np.abs(coordinates).argmax(0), [0, 1]] > 0).all()
    assert probes.principal_components(np.ones((3, 4)))[1].tolist() == [0, 0]
