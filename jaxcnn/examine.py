"""A trained run, examined: its whole test set in numbers and pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcnn import config as configs
from jaxcnn import insight, report
from jaxcnn import workdir as workdirs
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.errors import UserError
from jaxcnn.evaluate import confusion_matrix, precision_recall, top_accuracy
from jaxcnn.experiment import Experiment


def evaluate_run(
    workdir: str | os.PathLike[str],
    *,
    step: int | Literal["best"] | None = None,
    views: Literal[1, 2, 5, 10] | None = None,
    image: int = 0,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run on the whole test set, and shows what it finds.

    Writes `confusion.png`, `mistakes.png`, `filters.png`, `feature_maps.png`, `shifts.png` and, at
    last, `evaluation.json` into the run's folder. Of more than `report.LEGIBLE_CLASSES` there is no
    confusion matrix to look at, but the accuracy among the five likeliest, as ImageNet has it.

    Args:
      workdir: the run's folder.
      step: of the checkpoint, or "best", of the best test accuracy; by default the latest.
      views: of each image; by default as the run had it. Shifted images are seen in one.
      image: of the test set, whose feature maps are drawn.
      data_dir: where prepared datasets are; by default as the run had it.
      manual_dir: likewise.

    Returns:
      What `evaluation.json` holds.

    Raises:
      UserError: the folder holds no run, or no such checkpoint, the data cannot be had, there is no
        such image, or the views cannot be cut.
      RunError: the checkpoint is damaged.
    """
    workdir = Path(workdir).expanduser()
    config = workdirs.read_config(workdir, data_dir=data_dir, manual_dir=manual_dir)
    if views is not None:
        config = dataclasses.replace(config, eval_views=views)
        configs.check(config)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        step = checkpoints.choose(step)
        experiment = Experiment(config)
        class_names = experiment.dataset.class_names
        _check_image(image, len(experiment.dataset.test_images))
        state, _ = checkpoints.restore(experiment.state, step)
    report.say(f"{workdir}: {config.model} on {config.dataset}, checkpoint of step {step:,}")
    images, labels, log_probabilities = experiment.predict(state)
    _check_image(image, len(labels))  # once more: bad ones are not among them
    answers = log_probabilities.argmax(-1)
    of_labels = log_probabilities[np.arange(len(labels)), labels]
    means = {
        "loss": -float(of_labels.mean(dtype=float)),
        "accuracy": float((answers == labels).mean()),
    }
    if len(class_names) > report.LEGIBLE_CLASSES:
        means["top_5_accuracy"] = top_accuracy(log_probabilities, labels, 5)
    confusion = confusion_matrix(labels, answers, len(class_names))
    precision, recall = precision_recall(confusion)
    report.print_evaluation(means, confusion, precision, recall, class_names)
    if len(class_names) <= report.LEGIBLE_CLASSES:
        report.save_confusion(confusion, class_names, workdir / "confusion.png")
    report.save_mistakes(
        images, labels, np.exp(log_probabilities), class_names, workdir / "mistakes.png"
    )
    answer = class_names[answers[image]]
    shifts = insight.draw(experiment, state, images, labels, image, answer, workdir)
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
    workdirs.write_atomically(path, json.dumps(evaluation, indent=2) + "\n")
    report.say(f"Written: {path} and the pictures beside it")
    return evaluation


def _check_image(image: int, num_images: int) -> None:
    if not 0 <= image < num_images:
        raise UserError(f"--image is {image}: the test set has images 0 to {num_images - 1:,}")
