"""Local response normalization against its formula, PyTorch's and Caffe's."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from jax.test_util import check_grads

from jaxcnn.layers.normalization import (
    caffe_lrn,
    cuda_convnet_lrn,
    local_response_norm,
    paper_lrn,
    torch_lrn,
)

# A function and its remaining arguments, then the formula's a, n, beta and k.
ACROSS_CHANNELS = {
    "paper": (paper_lrn, {}, (1e-4, 5, 0.75, 2)),
    "cuda-convnet": (cuda_convnet_lrn, dict(size=9, alpha=1e-3, beta=0.6), (1e-3 / 9, 9, 0.6, 1)),
    "caffe": (caffe_lrn, {}, (1 / 5, 5, 0.75, 1)),
    "torch": (torch_lrn, dict(size=5), (1e-4 / 5, 5, 0.75, 1)),
    "torch, even": (torch_lrn, dict(size=4), (1e-4 / 4, 4, 0.75, 1)),
    "wider than the input": (torch_lrn, dict(size=30), (1e-4 / 30, 30, 0.75, 1)),
}
WITHIN_MAPS = {
    "paper": (paper_lrn, dict(size=3), (1e-4, 3, 0.75, 2)),
    "cuda-convnet": (cuda_convnet_lrn, dict(size=3, alpha=5e-5, beta=0.6), (5e-5 / 9, 3, 0.6, 1)),
    "cuda-convnet, even": (
        *(cuda_convnet_lrn, dict(size=4, alpha=5e-5, beta=0.75)),
        (5e-5 / 16, 4, 0.75, 1),
    ),
    "caffe": (caffe_lrn, {}, (1 / 25, 5, 0.75, 1)),
}
CASES = [
    pytest.param(*case, within_maps, id=f"{name}, within maps: {within_maps}")
    for within_maps, cases in ((False, ACROSS_CHANNELS), (True, WITHIN_MAPS))
    for name, case in cases.items()
]


def formula(x, cotangent, a, n, beta, k, within_maps):
    """Compute the formula and its gradient, one output after the other, in float64."""
    y, gradient = np.zeros(x.shape), np.zeros(x.shape)
    for place in itertools.product(*map(range, x.shape)):
        window = [slice(i, i + 1) for i in place]
        for axis in (1, 2) if within_maps else (3,):
            first = place[axis] - n // 2
            window[axis] = slice(max(0, first), first + n)
        window = tuple(window)
        base = k + a * (x[window] ** 2).sum()
        y[place] = x[place] * base**-beta
        gradient[place] += cotangent[place] * base**-beta
        gradient[window] += (
            cotangent[place] * x[place] * -beta * base ** (-beta - 1) * a * 2 * x[window]
        )
    return y, gradient


@pytest.mark.parametrize("function, constants, full, within_maps", CASES)
def test_local_response_norm_equals_the_formula(function, constants, full, within_maps):
    rng = np.random.default_rng(0)
    x = rng.normal(0, full[0] ** -0.5, (2, 6, 5, 11))  # large enough that the squares matter
    cotangent = rng.normal(size=x.shape)

    @jax.jit
    def value_and_gradient(x, cotangent):
        y, vjp = jax.vjp(lambda x: function(x, within_maps=within_maps, **constants), x)
        return y, *vjp(cotangent)

    y, gradient = value_and_gradient(jnp.float32(x), jnp.float32(cotangent))
    expected_y, expected_gradient = formula(x, cotangent, *full, within_maps)
    assert_close(y, expected_y, 2e-6)
    assert_close(gradient, expected_gradient, 2e-6)


@pytest.mark.parametrize(
    "size, sums",
    [
        (1, [1, 4, 16, 64, 256]),
        (2, [1, 5, 20, 80, 320]),  # itself and the one before
        (3, [5, 21, 84, 336, 320]),
        (4, [5, 21, 85, 340, 336]),  # two before, itself, one after
        (5, [21, 85, 341, 340, 336]),
    ],
)
def test_local_response_norm_places_its_window(size, sums):
    x = jnp.array([1.0, 2, 4, 8, 16])

    @jax.jit
    def denominators(x):
        def norm(x, **within_maps):
            return local_response_norm(x, size, 1.0, 1.0, 1.0, mean=False, **within_maps)

        row, column = x.reshape(1, 5, 1), x.reshape(5, 1, 1)
        within = (line / norm(line, within_maps=True) for line in (row, column))
        return x / norm(x), *(line.ravel() for line in within)

    for denominator in denominators(x):
        chex.assert_trees_all_close(denominator, 1 + np.float32(sums), rtol=1e-5)


@pytest.mark.parametrize("size", [4, 5])
def test_torch_lrn_equals_torch(size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(0, 100, (2, 6, 5, 11)).astype(np.float32)
    theirs = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    expected = torch.nn.LocalResponseNorm(size)(theirs)
    expected.square().sum().backward()

    @jax.jit
    def value_and_gradient(x):
        y, vjp = jax.vjp(lambda x: torch_lrn(x, size), x)
        return y, *vjp(2 * y)

    y, gradient = value_and_gradient(x)
    assert_close(y, np.moveaxis(expected.detach().numpy(), 1, -1), 2e-6)
    assert_close(gradient, np.moveaxis(theirs.grad.numpy(), 1, -1), 2e-6)


@pytest.mark.parametrize("within_maps", [False, True])
def test_local_response_norm_has_second_derivatives(within_maps):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4)), jnp.float32)

    @jax.jit
    def norm(x):
        return local_response_norm(x, 3, 0.5, 0.75, 1, mean=False, within_maps=within_maps)

    check_grads(norm, (x,), order=2, modes=["rev"], eps=1e-2, rtol=2e-2)


def test_local_response_norm_of_nothing():
    zeros = jnp.zeros((2, 7))
    chex.assert_trees_all_equal(jax.jit(paper_lrn)(zeros), zeros)
    gradient = jax.jit(jax.grad(lambda x: paper_lrn(x).sum()))(zeros)
    chex.assert_trees_all_close(gradient, jnp.full_like(zeros, 2**-0.75))


@pytest.mark.parametrize("within_maps", [False, True])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_local_response_norm_computes_narrow_types_in_float32(dtype, within_maps):
    x = jnp.asarray(np.random.default_rng(0).normal(0, 400, (2, 4, 4, 7)), dtype)
    norm = jax.jit(lambda x: paper_lrn(x, within_maps=within_maps))
    y = norm(x)  # squares above 65504, float16's largest
    assert y.dtype == dtype
    chex.assert_trees_all_equal(y, norm(x.astype(jnp.float32)).astype(dtype))


@pytest.mark.parametrize("shape", [(7,), (2, 7), (2, 2, 3, 4, 7)])
def test_local_response_norm_takes_any_batch(shape):
    x = 100 * jnp.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    norm = jax.jit(paper_lrn)
    one_by_one = norm(x.reshape(-1, 1, 1, 7)).reshape(shape)
    chex.assert_trees_all_close(norm(x), one_by_one, rtol=1e-6)


@pytest.mark.parametrize(
    "inputs, constants, message",
    [
        (jnp.ones((2, 3), jnp.int32), {}, "inputs are int32; expected a float type; cast"),
        (jnp.ones((2, 3)), dict(alpha=-1.0), "alpha is -1.0 and k is 2.0"),
        (jnp.ones((2, 3)), dict(k=0.0), "alpha is 0.0001 and k is 0.0"),
        (jnp.ones((2, 3)), dict(size=0), "expected an integer of at least 1"),
        (jnp.ones((2, 3)), dict(within_maps=True), r"shape \(2, 3\), for 2 spatial"),
    ],
)
def test_local_response_norm_refuses_what_does_not_fit(inputs, constants, message):
    with pytest.raises(ValueError, match=message):
        paper_lrn(inputs, **constants)
