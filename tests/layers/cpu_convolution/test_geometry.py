import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.layers.cpu_convolution.geometry import Geometry


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_worked_example_of_alexnets_conv1():
    conv1 = Geometry((224, 224), (11, 11), (4, 4), ((2, 2), (2, 2)), groups=1)
    assert conv1.output_size == (55, 55)
    assert conv1.unit_stride() == ((57, 57), (3, 3), (1, 1), ((0, 0), (0, 0)), 1)
    assert conv1.unit_stride().output_size == (55, 55)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_each_shape_follows_from_the_other_two(leading):
    geometry = Geometry((9, 8), (3, 2), (2, 1), ((1, 0), (0, 1)), groups=2)
    images, kernel, outputs = (
        shape(*leading, 7, 9, 8, 6),
        shape(*leading, 3, 2, 3, 10),
        shape(*leading, 7, 4, 8, 10),
    )
    assert geometry.output_shape(images, kernel) == outputs.shape
    assert geometry.image_shape(outputs, kernel) == images.shape
    assert geometry.kernel_shape(images, outputs) == kernel.shape


def test_unit_stride_has_the_same_outputs():
    rng = np.random.default_rng(0)
    for _ in range(100):
        kernel, strides, images = (
            rng.integers(1, 8, 2),
            rng.integers(1, 5, 2),
            rng.integers(8, 20, 2),
        )
        pads = tuple((int(rng.integers(k)), int(rng.integers(k))) for k in kernel)
        geometry = Geometry(tuple(images), tuple(kernel), tuple(strides), pads, groups=3)
        assert geometry.unit_stride().output_size == geometry.output_size
        assert geometry.unit_stride().strides == (1, 1) and geometry.unit_stride().groups == 1
