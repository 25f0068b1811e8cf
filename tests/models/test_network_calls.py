"""Every network computes the same eagerly, jitted, one image at a time and exported."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models import IMAGE_SHAPES, MODELS

BY_DEFAULT = ("lenet5",)


def network(name):
    model, image_shape = MODELS[name](num_classes=10), IMAGE_SHAPES[name]
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *image_shape), jnp.float32))
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.normal(size=(40, *image_shape)), jnp.float32)
    return model, params, images


@pytest.mark.parametrize(
    "name", [pytest.param(m, marks=() if m in BY_DEFAULT else pytest.mark.slow) for m in MODELS]
)
def test_network_computes_the_same_eagerly_jitted_and_one_by_one(name):
    model, params, images = network(name)
    eagerly = model.apply(params, images)
    jitted = jax.jit(model.apply)
    one_by_one = jnp.concatenate([jitted(params, image[None]) for image in images])
    scale = float(jnp.abs(eagerly).max())
    for other in (jitted(params, images), one_by_one):
        np.testing.assert_allclose(other, eagerly, rtol=0, atol=1e-5 * scale)
    (batch,) = jax.export.symbolic_shape("batch")
    like = jax.ShapeDtypeStruct((batch, *images.shape[1:]), images.dtype)
    program = jax.export.export(jax.jit(lambda images: model.apply(params, images)))(like)
    np.testing.assert_allclose(program.call(images), eagerly, rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5", "lenet5-1998", "cuda-convnet-18pct"])
def test_network_gradient_is_the_same_eagerly_and_jitted(name):
    model, params, images = network(name)
    grad = jax.grad(lambda params: jnp.sin(model.apply(params, images)).sum())
    eagerly, jitted = grad(params), jax.jit(grad)(params)
    for actual, expected in zip(jax.tree.leaves(eagerly), jax.tree.leaves(jitted), strict=True):
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * scale)
