"""Evaluate a trained run on its whole test set, in numbers and pictures."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from flax import linen as nn
from jaxtyping import Int

from jaxcnn import report
from jaxcnn.data.datasets import Dataset
from jaxcnn.distributed import processes
from jaxcnn.errors import UserError
from jaxcnn.evaluation import pictures, probes
from jaxcnn.evaluation.metrics import confusion_matrix, precision_recall, top_accuracy
from jaxcnn.evaluation.pictures import label
from jaxcnn.evaluation.table import LEGIBLE_CLASSES, print_evaluation
from jaxcnn.files import write_atomically
from jaxcnn.paths import local_path
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.step import TrainState
from jaxcnn.training.validate import validated
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.checkpoints import Checkpoints

if TYPE_CHECKING:
    from jaxcnn.data.stream import StreamedDataset

FEW_SHIFTED, LARGE = 1000, 28  # so many images if a network sees more than 28 x 28 pixels


def evaluate_run(
    workdir: str | os.PathLike[str],
    *,
    step: int | Literal["best"] | None = None,
    views: Literal[1, 2, 5, 10] | None = None,
    image: int = 0,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    dataset: Dataset | StreamedDataset | None = None,
    model: nn.Module | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint of a run on the whole test set, print the result and draw pictures.

    Writes `confusion.png`, `mistakes.png`, `filters.png`, `feature_maps.png`, `shifts.png` and,
    last, `evaluation.json` into the run's folder. With more than `LEGIBLE_CLASSES` classes, there
    is no confusion matrix but the top-5 accuracy.

    Args:
      workdir: folder of the run.
      step: step of the checkpoint, or "best" for the best test accuracy; by default the latest.
      views: views of each image; by default as in the run. Shifted images have one view.
      image: index of the test image whose feature maps are drawn.
      data_dir: directory of prepared datasets; by default as in the run.
      manual_dir: directory of original files; by default as in the run.
      dataset: dataset, if the run was given one.
      model: network, if the run was given one.

    Returns:
      The content of `evaluation.json`.

    Raises:
      UserError: the folder holds no run or no such checkpoint, the data cannot be read, there is no
        such image, or the views cannot be cut.
      RunError: the checkpoint is corrupt.
    """
    workdir = local_path(workdir, "the run")
    processes.check_devices()
    config = workdirs.read_config(workdir, data_dir=data_dir, manual_dir=manual_dir)
    with Checkpoints(workdir / "checkpoints", config) as checkpoints:
        if views is not None:
            config = dataclasses.replace(config, eval_views=views)
            config = validated(config, dataset=dataset, model=model)
        checkpoints.resolve_step(step)  # before the data is loaded
        experiment = Experiment(config, dataset=dataset, model=model)
        class_names = experiment.dataset.class_names
        _check_image(image, len(experiment.dataset.test_images))
        state, _ = checkpoints.restore(experiment.state, step)
    step = int(state.step)
    report.say(f"{workdir}: {config.model} on {config.dataset}, checkpoint of step {step:,}")
    images, labels, log_probs = experiment.predict(state)
    _check_image(image, len(labels))  # once more: bad ones are not among them
    answers = log_probs.argmax(-1)
    of_labels = log_probs[np.arange(len(labels)), labels]
    means = {
        "loss": -float(of_labels.mean(dtype=float)),
        "accuracy": float((answers == labels).mean()),
    }
    if len(class_names) > LEGIBLE_CLASSES:
        means["top_5_accuracy"] = top_accuracy(log_probs, labels, 5)
    confusion = confusion_matrix(labels, answers, len(class_names))
    precision, recall = precision_recall(confusion)
    print_evaluation(means, confusion, precision, recall, class_names)
    if len(class_names) <= LEGIBLE_CLASSES:
        pictures.save_confusion(confusion, class_names, workdir / "confusion.png")
    pictures.save_mistakes(images, labels, np.exp(log_probs), class_names, workdir / "mistakes.png")
    answer = class_names[answers[image]]
    shifts = draw(experiment, state, images, labels, image, answer, workdir)
    evaluation = {
        "step": step,
        "views": config.eval_views,
        "num_test_examples": len(labels),
        **{f"test_{name}": value for name, value in means.items()},
        "class_names": class_names,
        "precision": [None if math.isnan(x) else x for x in precision.tolist()],
        "recall": [None if math.isnan(x) else x for x in recall.tolist()],
        "confusion": confusion.tolist(),
        **shifts,
    }
    path = workdir / "evaluation.json"
    write_atomically(path, json.dumps(evaluation, indent=2) + "\n")
    report.say(f"Written: {path} and the pictures beside it")
    return evaluation


def _check_image(image: int, num_images: int) -> None:
    if not isinstance(image, int) or not 0 <= image < num_images:
        raise UserError(
            f"`image` is {image!r}; expected the index of a test image, 0 to {num_images - 1:,}"
        )


def draw(
    experiment: Experiment,
    state: TrainState,
    images: np.ndarray | Sequence[np.ndarray],
    labels: Int[np.ndarray, " examples"],
    image: int,
    answer: str,
    workdir: Path,
) -> dict[str, Any]:
    """Draw `filters.png`, `feature_maps.png` and `shifts.png`; return their numbers for JSON.

    A network without kernels or without maps has no such picture.

    Args:
      experiment: experiment of the run.
      state: trained state.
      images: raw images of the test set.
      labels: labels of the images.
      image: index of the test image whose maps are drawn.
      answer: class that the network predicts for that image.
      workdir: folder of the run.
    """
    inputs = experiment.preprocess.evaluate(images[image][None])
    maps = {
        name: np.asarray(x[0], np.float32) for name, x in probes.feature_maps(state, inputs).items()
    }
    layers = [name for name in maps if "kernel" in state.eval_params.get(name, {})]
    if layers:
        kernel = np.asarray(state.eval_params[layers[0]]["kernel"])
        pictures.save_filters(kernel, layers[0], workdir / "filters.png")
    if maps:
        class_names = experiment.dataset.class_names
        truth = label(class_names[labels[image]], 16)
        title = f"test image {image}\nclass: {truth}\nanswer: {label(answer, 16)}"
        pictures.save_feature_maps(images[image], title, maps, workdir / "feature_maps.png")

    few = max(inputs.shape[1:3]) > LARGE and len(labels) > FEW_SHIFTED
    count = FEW_SHIFTED if few else len(labels)
    # By chance: some sets come class by class, others go round their classes.
    rows = np.sort(np.random.default_rng(0).choice(len(labels), count, replace=False)).tolist()
    predict = functools.partial(experiment.predict_one_view, state)
    shifted = np.stack([images[row] for row in rows])  # a stream decodes them one by one
    accuracies = probes.shift_accuracies(predict, shifted, labels[rows])
    fill = "on a background of 0" if inputs.shape[-1] == 1 else "the edge repeated"
    which = f"{count:,} of the {len(labels):,}" if few else f"all {count:,}"
    comment = f"{which} test images, {fill}"
    pictures.save_shifts(accuracies, comment, workdir / "shifts.png")
    return {"shift_accuracies": accuracies, "num_shifted_examples": count}
