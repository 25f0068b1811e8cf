"""Trains some networks for a few steps on N CPU devices; for test_devices.py.

    python on_devices.py N FOLDER NAME...

Writes, for each NAME of CASES or MODELS, the loss of each step, the final parameters and the text
of the compiled program.
"""

import dataclasses
import functools
import json
import pathlib
import sys

import jax
import numpy as np

from jaxcnn import PRESETS
from jaxcnn.config import OptimizerConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.data.transforms import Affine, Cutout, HorizontalFlip, PCAColor, RandomCrop
from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.models.alexnet import AlexNet32
from jaxcnn.training.experiment import Experiment

NUM_STEPS = 4
# In the third, rounding decides whether a unit of conv4 is rectified: what follows from that is no
# difference between devices.
NUM_STEPS_OF = {"alexnet-32": 2}
GRAY = (RandomCrop(28, 2), Affine(degrees=10))
COLOR = (HorizontalFlip(), PCAColor(0.1), Cutout(8))

# Name -> model, image size, transforms, devices along `model`, and the numbers of devices. AlexNet
# itself takes gigabytes on many devices in one process; alexnet-32 has its layers.
CASES = {
    "lenet5-tanh": ("lenet5-tanh", (28, 28, 1), GRAY, 1, (1, 2, 8)),
    "lenet5-1998": ("lenet5-1998-lecun-uniform", (28, 28, 1), (), 1, (1, 2)),
    "cuda-convnet-18pct": ("cuda-convnet-18pct", (32, 32, 3), COLOR, 1, (1, 2)),
    "cuda-convnet-11pct": ("cuda-convnet-11pct", (24, 24, 3), (), 1, (1, 2)),
    "alexnet-32": ("alexnet-32", (32, 32, 3), COLOR, 1, (1, 8)),
    "alexnet-32-split": ("alexnet-32", (32, 32, 3), COLOR, 4, (8,)),
}


def every_number(model):
    """Return the case of a model on any number of devices."""
    return model, IMAGE_SHAPES[model], (), 1, (1, 2, 4, 8)


def experiment(model, image_shape, transforms, model_axis, _):
    """Return the experiment of a case: 64 images of noise, batches of 32, and a dull optimizer.

    Adam would not do: it makes a step of what is left of a gradient that rounding has drowned.
    Nor would a rate at which the loss leaps: rounding decides which unit wins a maximum, and which
    of those near 0 are rectified, and what follows from that is to stay below what is compared.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(64, *image_shape), dtype=np.uint8)
    labels = rng.integers(10, size=64, dtype=np.int32)
    config = dataclasses.replace(
        PRESETS["lenet5-mnist5k"].config,
        model=model,
        transforms=transforms,
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.0002),
        batch_size=32,
        epochs=NUM_STEPS,
        model_axis=model_axis,
    )
    noise = Dataset("noise", images, labels, images, labels, tuple("0123456789"))
    return Experiment(config, dataset=noise)


def main():
    num_devices, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    jax.config.update("jax_num_cpu_devices", num_devices)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    MODELS["alexnet-32"] = functools.partial(AlexNet32, dropout=0.5)
    for name in sys.argv[3:]:
        case = CASES[name] if name in CASES else every_number(name)
        run = experiment(*case)
        state, losses = run.state, []
        for step in range(NUM_STEPS_OF.get(case[0], NUM_STEPS)):
            state, metrics = run.train(state, run.no_metrics(), step + 1)
            losses.append(float(metrics["loss"]))
        leaves = jax.tree.leaves(state)
        path = folder / f"{name}-{num_devices}"
        path.with_suffix(".hlo").write_text(run.feed.train_program.as_text())
        params = jax.tree_util.tree_leaves_with_path(state.params)
        arrays = {jax.tree_util.keystr(where): np.asarray(leaf) for where, leaf in params}
        np.savez(path.with_suffix(".npz"), **arrays)
        split = [leaf for leaf in leaves if not leaf.sharding.is_fully_replicated]
        facts = {"losses": losses, "num_split": len(split)}
        path.with_suffix(".json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
