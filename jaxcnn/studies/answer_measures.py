"""What studies measure of answers that are averaged: over views, and over networks."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import numpy as np

from jaxcnn.studies.image_measures import test_images
from jaxcnn.studies.runs import runs_of_seeds
from jaxcnn.studies.study import Measured
from jaxcnn.workdir import folder as workdirs

NETWORKS = 5


def views(run: Path, *, number: Literal[1, 2, 5, 10]) -> Measured:
    """Return `test_error`, in percent, of a run whose answers are averaged over views of an image.

    Args:
      run: folder of the run.
      number: views of each test image, as `TrainConfig.eval_views` describes them.
    """
    from jaxcnn.evaluation.predict import load  # late, because it imports jax

    images, labels = test_images(run)
    return _error(load(run, views=number).log_probs(images), labels)


def ensemble(run: Path, *, number: int) -> Measured:
    """Return `test_error`, in percent, of the mean probabilities of networks of several seeds.

    The seeds are that of the run and those after it, cyclically in its group of NETWORKS, which
    starts at a multiple of NETWORKS: for 3 networks and seed 4, these are 4, 0 and 1.

    Args:
      run: folder of a run; `runs/` has those of the same config with the other seeds.
      number: number of networks, 1 to NETWORKS.

    Raises:
      UserError: a run is missing.
    """
    seed = workdirs.read_config(run).seed
    first = seed - seed % NETWORKS
    seeds = [first + (seed + i) % NETWORKS for i in range(number)]
    paths = runs_of_seeds(run, seeds)
    probabilities = [_probabilities(path, (path / "result.json").read_text()) for path in paths]
    return _error(np.mean(probabilities, axis=0), test_images(run)[1])


@functools.cache
def _probabilities(run: Path, result: str) -> np.ndarray:
    """Return a run's probabilities for its test images; with another result, it is another run."""
    from jaxcnn.evaluation.predict import load  # late, because it imports jax

    return np.exp(load(run).log_probs(test_images(run)[0]))


def _error(outputs: np.ndarray, labels: np.ndarray) -> Measured:
    return {"test_error": round(100 * float(np.mean(outputs.argmax(-1) != labels)), 4)}
