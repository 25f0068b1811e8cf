"""Compare one training step of each network with stored numbers.

The numbers come from this code, not from a paper. They detect a change of the code that changes
what a network computes.

    python tests/models/test_reference_metrics.py [NAME ...]

prints the table of this file.
"""

import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.training.step import create_state, train_step


class Metrics(NamedTuple):
    loss: float  # mean of the batch, before the step
    gradient_norm: float
    parameter_norm: float  # after the step
    next_loss: float  # mean of the same batch, after the step


REFERENCE = {
    "linear": Metrics(2.48148, 9.880284, 3.171124, 1.57325),
    "mlp-300": Metrics(2.490185, 10.13073, 17.61667, 1.541385),
    "mlp-1000": Metrics(2.938356, 13.15654, 31.77412, 1.378334),
    "mlp-300-100": Metrics(2.535256, 9.653797, 20.22961, 1.66279),
    "mlp-500-150": Metrics(2.789668, 11.01376, 25.67059, 1.663272),
    "lenet1": Metrics(2.46804, 3.555144, 5.866642, 2.350412),
    "lenet4": Metrics(2.842641, 5.542093, 12.65812, 2.562803),
    "lenet5": Metrics(2.333086, 0.9513645, 15.31132, 2.324159),
    "lenet5-tanh": Metrics(2.298012, 1.337884, 15.3114, 2.280144),
    "lenet5-relu": Metrics(2.453687, 6.346548, 15.30952, 2.139375),
    "lenet5-modern": Metrics(3.428988, 22.83131, 16.28396, 2.87242),
    "lenet5-1998": Metrics(74.257, 18.6537, 2.595999, 70.91243),
    "lenet5-1998-lecun-uniform": Metrics(126.6806, 263.0271, 15.45916, 136.8272),
    "alexnet": Metrics(2.333265, 24.59181, 96.7131, 1.995292),
    "alexnet-32": Metrics(2.597269, 17.73237, 57.75592, 2.148148),
    "alexnet-2012": Metrics(3.462469, 67.11951, 121.5685, 11.58396),
    "cuda-convnet-26pct": Metrics(2.303657, 2.875197, 25.80667, 2.294265),
    "cuda-convnet-19pct": Metrics(2.302675, 0.4682274, 2.941346, 2.301461),
    "cuda-convnet-18pct": Metrics(2.302675, 0.4682271, 2.941346, 2.301461),
    "cuda-convnet-13pct": Metrics(2.303424, 5.323274, 40.06564, 2.295367),
    "cuda-convnet-11pct": Metrics(2.302922, 7.179281, 56.58837, 2.294965),
}

# jax 0.7.2 and 0.12 differ by 2e-6 at most. One step hardly changes the norm of all parameters.
RTOL = Metrics(loss=1e-4, gradient_norm=1e-4, parameter_norm=1e-5, next_loss=1e-4)

BATCH_SIZE = 8
# Large networks, and those that differ little from another.
SLOW = (
    *("alexnet", "alexnet-2012", "alexnet-32", "cuda-convnet-11pct"),
    *("cuda-convnet-26pct", "cuda-convnet-19pct", "cuda-convnet-13pct"),
    *("linear", "mlp-300", "mlp-1000", "mlp-500-150", "lenet1", "lenet4", "lenet5-1998"),
)
SHAPES = IMAGE_SHAPES | {"alexnet": (64, 64, 3)}  # the smallest image is 63x63
# The initial kernels of 1e-4 are for pixels in 0..255; with smaller pixels the logits are near 0.
SCALE = {name: 64.0 for name in MODELS if name.startswith("cuda-convnet")}

MESSAGE = """{name}: the metrics of one training step changed. Expected and actual:
{expected}
{actual}
If the change is meant, say why in the commit and replace the network's row of REFERENCE by that of
    python tests/models/test_reference_metrics.py {name}"""


# Compile fast, because each program runs once or twice.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def norm(tree):
    squares = [np.square(leaf, dtype=np.float64).sum() for leaf in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(squares)))


def measure(name):
    rng = np.random.default_rng(0)
    images = SCALE.get(name, 1.0) * rng.normal(size=(BATCH_SIZE, *SHAPES[name]))
    batch = {
        "image": jnp.asarray(images, jnp.float32),
        "label": jnp.arange(BATCH_SIZE, dtype=jnp.int32),
    }
    tx = optax.sgd(0.01, momentum=0.9)
    create = partial(create_state, MODELS[name](num_classes=10), tx, SHAPES[name])
    state = jit(create)(jax.random.key(0))
    step = jit(train_step, donate_argnums=0)
    state, sums = step(state, batch, jax.random.key(1))
    # The momentum of the first step is the gradient.
    gradient_norm = norm(optax.tree_utils.tree_get(state.opt_state, "trace"))
    parameter_norm = norm(state.params)
    _, next_sums = step(state, batch, jax.random.key(1))
    loss, next_loss = (float(each["loss"]) / BATCH_SIZE for each in (sums, next_sums))
    return Metrics(loss, gradient_norm, parameter_norm, next_loss)


def table_row(name, metrics):
    return f'    "{name}": Metrics({", ".join(f"{value:.7g}" for value in metrics)}),'


def test_reference_metrics_cover_every_network():
    assert REFERENCE.keys() == MODELS.keys()


@pytest.mark.parametrize(
    "name", [pytest.param(m, marks=[pytest.mark.slow] if m in SLOW else []) for m in MODELS]
)
def test_train_step_gives_the_reference_metrics(name):
    actual, expected = measure(name), REFERENCE[name]
    close = [
        np.isclose(*pair, rtol=rtol, atol=0)
        for *pair, rtol in zip(actual, expected, RTOL, strict=True)
    ]
    rows = {"expected": table_row(name, expected), "actual": table_row(name, actual)}
    assert all(close), MESSAGE.format(name=name, **rows)


if __name__ == "__main__":
    print("REFERENCE = {")
    for name in sys.argv[1:] or MODELS:
        print(table_row(name, measure(name)), flush=True)
    print("}")
