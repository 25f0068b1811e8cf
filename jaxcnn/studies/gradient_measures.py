"""What studies measure of the gradients and the units of a network, before and after training."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.studies.image_measures import test_images
from jaxcnn.studies.measures import test_error
from jaxcnn.studies.study import Measured
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.metrics_log import read_metrics

LAYERS = ("C1", "C3", "C5", "F6", "output")
FLAT = 0.19  # of the largest derivative: a sigmoid's outside of outputs in [0.05, 0.95]


def plateau(run: Path) -> Measured:
    """Return how long a run of LeNet-5 stays near chance, and what its gradients are.

    Returns:
      `test_error`, in percent; `plateau`, the steps until a log line has a training accuracy of at
      least one half, or all steps of the run if none has, and `log_plateau`, its decimal logarithm;
      `gradient_ratio`, the decimal logarithm of the root mean square of the loss's gradient by the
      kernel of C1, divided by that of the output, with the initial parameters; `flat_start` and
      `flat_end`, the percentage of the units up to F6 at which the derivative of the activation is
      less than FLAT of its largest, before and after training. The last three are computed on 1,000
      test images.
    """
    from jaxcnn.evaluation.predict import load  # late, because these import jax
    from jaxcnn.training.experiment import Experiment

    lines = read_metrics(run)
    steps = next(
        (line["step"] for line in lines if line.get("train_accuracy", 0) >= 0.5), lines[-1]["step"]
    )
    images, labels = test_images(run)
    classifier = load(run)
    inputs = classifier.preprocess(images[:1000])
    model, activation = classifier.trained.model, classifier.trained.model.activation
    initial = Experiment(workdirs.read_config(run)).state.params
    norms = gradient_norms(model, initial, inputs, labels[:1000])
    return {
        **test_error(run),
        "plateau": float(steps),
        "log_plateau": math.log10(steps),
        "gradient_ratio": math.log10(norms["C1"] / norms["output"]),
        "flat_start": flat_units(model, activation, initial, inputs),
        "flat_end": flat_units(model, activation, classifier.trained.params, inputs),
    }


def gradient_norms(model: Any, params: Any, inputs: Any, labels: np.ndarray) -> dict[str, float]:
    """Return the root mean square of the loss's gradient by the kernel of each layer."""
    import jax
    import jax.numpy as jnp
    import optax

    def loss(params: Any) -> jax.Array:
        logits = model.apply({"params": params}, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    grads = jax.jit(jax.grad(loss))(params)
    return {layer: float(jnp.sqrt(jnp.square(grads[layer]["kernel"]).mean())) for layer in LAYERS}


def flat_units(model: Any, activation: Callable[[Any], Any], params: Any, inputs: Any) -> float:
    """Return the percentage of units where the activation is flat."""
    import jax

    def is_layer(module: Any, _: str) -> bool:
        return module.name in LAYERS[:-1]

    _, variables = model.apply(
        {"params": params}, inputs, capture_intermediates=is_layer, mutable="intermediates"
    )
    sums = [calls["__call__"][0] for calls in variables["intermediates"].values()]
    values = np.concatenate([np.asarray(each).ravel() for each in sums])
    slope = jax.jit(jax.vmap(jax.grad(activation)))
    largest = np.abs(_slopes(slope)).max()
    return round(100 * float((np.abs(slope(values)) < FLAT * largest).mean()), 4)


@functools.cache
def _slopes(slope: Callable[[Any], Any]) -> np.ndarray:
    return np.asarray(slope(np.linspace(-8, 8, 1601, dtype=np.float32)))
