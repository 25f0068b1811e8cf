"""Evaluate a trained network on a whole test set, in numbers and pictures."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from flax import linen as nn
from jaxtyping import Int

from jaxcnn import config as configs
from jaxcnn import report
from jaxcnn.config import TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.data.folders import composed
from jaxcnn.data.open import Split, SplitName, open_dataset, open_split, split_of
from jaxcnn.data.splits import split_training_set
from jaxcnn.distributed import processes
from jaxcnn.errors import UserError
from jaxcnn.evaluation import metrics, probes
from jaxcnn.evaluation.drawings import Answers, draw
from jaxcnn.evaluation.predict import Classifier
from jaxcnn.evaluation.table import print_evaluation
from jaxcnn.files import write_atomically
from jaxcnn.interop.pretrained import load_pretrained
from jaxcnn.interop.trained import load_run
from jaxcnn.paths import local_path
from jaxcnn.training.validate import validated
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.dataset_info import DatasetInfo

if TYPE_CHECKING:
    from jaxcnn.data.stream import StreamedDataset

PathLike = str | os.PathLike[str]

# Shifts take 17 evaluations; networks that see more than 28x28 pixels are tested on 1,000 images.
FEW_SHIFTED, LARGE = 1000, 28


def evaluate_run(
    workdir: PathLike,
    *,
    step: int | Literal["best"] | None = None,
    views: Literal[1, 2, 5, 10] | None = None,
    image: int = 0,
    saliency: Sequence[int] = (),
    embedding: bool = False,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    dataset: str | Dataset | StreamedDataset | None = None,
    split: SplitName | None = None,
    output: PathLike | None = None,
    model: nn.Module | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint of a run on the whole test set, print the result and draw pictures.

    Writes `evaluation.json`, then `confusion.png`, `mistakes.png`, `calibration.png`,
    `rejection.png`, `filters.png`, `feature_maps.png` and `shifts.png`. A picture that cannot be
    drawn costs a warning. With more than `LEGIBLE_CLASSES` classes, the top-5 accuracy replaces the
    confusion matrix.

    Args:
      workdir: folder of the run.
      step: step of the checkpoint, or "best" for the best test accuracy; by default the latest.
      views: views of each image; by default as in the run. Shifted images have one view.
      image: index of the test image whose feature maps are drawn.
      saliency: indices of test images; `saliency.png` shows what their answers depend on, by
        Grad-CAM and by occlusion.
      embedding: whether `embedding.png` shows the principal components of the last layer but one.
      data_dir: directory of prepared datasets; by default as in the run.
      manual_dir: directory of original files; by default as in the run.
      dataset: name of another dataset, such as folder:DIR, or a dataset. Its classes are matched
        with the run's by their names.
      split: split of the dataset; by default the one that training tests on. "validation" is the
        split that `val_fraction` drew.
      output: folder to write to, created if missing; by default the run's folder.
      model: network, if the run was given one.

    Returns:
      The content of `evaluation.json`.

    Raises:
      UserError: the folder holds no run or no such checkpoint, the data cannot be read or has a
        class that the run lacks, there is no such image, the views cannot be cut, or the output
        folder cannot be written.
      RunError: the checkpoint is corrupt.
    """
    workdir = local_path(workdir, "the run")
    processes.check_devices()
    config = workdirs.read_config(workdir, data_dir=data_dir, manual_dir=manual_dir)
    folder = _writable(workdir if output is None else local_path(output, "`output`"))
    config = dataclasses.replace(config, eval_views=views or config.eval_views)
    test = _open_test_set(config, dataset, split, model)
    trained = load_run(
        workdir,
        step=step,
        data_dir=data_dir,
        manual_dir=manual_dir,
        info=_info(test) if dataset else None,
        model=model,
    )
    return evaluate(
        Classifier(trained, views=views),
        test,
        folder,
        image=image,
        saliency=saliency,
        embedding=embedding,
    )


def evaluate_pretrained(
    name: str,
    *,
    views: Literal[1, 2, 5, 10] | None = None,
    image: int = 0,
    saliency: Sequence[int] = (),
    embedding: bool = False,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    dataset: str | Dataset | StreamedDataset | None = None,
    split: SplitName | None = None,
    output: PathLike | None = None,
) -> dict[str, Any]:
    """Evaluate weights that the package ships; see `evaluate_run` for the other arguments.

    Args:
      name: name of the weights.
      views: as for a run.
      image: as for a run.
      saliency: as for a run.
      embedding: as for a run.
      data_dir: as for a run.
      manual_dir: as for a run.
      dataset: as for a run; by default the one that the network was trained on.
      split: as for a run.
      output: folder to write to, created if missing; by default `runs/NAME-pretrained`.
    """
    processes.check_devices()
    trained = load_pretrained(name)
    config = dataclasses.replace(trained.config, data_dir=data_dir, manual_dir=manual_dir)
    folder = _writable(local_path(output or f"runs/{name}-pretrained", "`output`"))
    test = _open_test_set(config, dataset, split)
    return evaluate(
        Classifier(trained, views=views),
        test,
        folder,
        image=image,
        saliency=saliency,
        embedding=embedding,
    )


def evaluate(
    classifier: Classifier,
    test: Split,
    folder: Path,
    *,
    image: int = 0,
    saliency: Sequence[int] = (),
    embedding: bool = False,
) -> dict[str, Any]:
    """Evaluate a classifier on a test set; write the numbers, print them, and draw the pictures.

    Args:
      classifier: trained network.
      test: images, labels and class names.
      folder: existing folder to write to.
      image: index of the image whose feature maps are drawn.
      saliency: indices of the images for which `saliency.png` is drawn.
      embedding: whether `embedding.png` is drawn.

    Returns:
      The content of `evaluation.json`.

    Raises:
      UserError: the test set has a class that the network lacks, or there is no such image.
    """
    trained, class_names = classifier.trained, classifier.class_names
    of_run = _matched(test.class_names, class_names, test.name)
    _check_chosen(image, saliency, len(test.images))
    which = f", split {test.split}" if test.split else ""
    report.say(
        f"{trained.name}: {trained.config.model} on {test.name}{which}, step {trained.step:,}"
    )
    answers = _predict(classifier, test)
    _check_chosen(image, saliency, len(answers.labels))  # again, without the skipped images
    answers = answers._replace(labels=of_run[answers.labels])
    evaluation = {
        "step": trained.step,
        "views": classifier.views,
        "dataset": test.name,
        "split": test.split,
        **metrics.measure(answers.labels, answers.log_probs, class_names),
    }
    path = folder / "evaluation.json"
    _write(path, evaluation)
    print_evaluation(evaluation)
    evaluation |= measure_shifts(classifier, answers.images, answers.labels)
    _write(path, evaluation)
    options: dict[str, Any] = {"image": image, "saliency": saliency, "embedding": embedding}
    draw(classifier, evaluation, answers, folder, **options)
    report.say(f"Written: {path} and the pictures beside it")
    return evaluation


def measure_shifts(
    classifier: Classifier,
    images: np.ndarray | Sequence[np.ndarray],
    labels: Int[np.ndarray, " examples"],
) -> dict[str, Any]:
    """Return the accuracies on shifted images, or on FEW_SHIFTED of them if images are large."""
    size = max(classifier.preprocess(images[0][None]).shape[1:3])
    count = FEW_SHIFTED if size > LARGE and len(labels) > FEW_SHIFTED else len(labels)
    # At random, because some datasets are sorted by class and others alternate the classes.
    rows = np.sort(np.random.default_rng(0).choice(len(labels), count, replace=False)).tolist()
    shifted = np.stack([images[row] for row in rows])  # a stream decodes them one by one
    accuracies = probes.shift_accuracies(classifier.log_probs_of_one_view, shifted, labels[rows])
    return {"shift_accuracies": accuracies, "num_shifted_examples": count}


def _writable(folder: Path) -> Path:
    """Create a folder; check at once that it can be written, not after the evaluation."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create {folder}: {error.strerror}; set `output` to another folder"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written; set `output` to another folder")
    return folder


def _open_test_set(
    config: TrainConfig,
    dataset: str | Dataset | StreamedDataset | None,
    split: SplitName | None,
    model: nn.Module | None = None,
) -> Split:
    if isinstance(dataset, str):
        # The splits of another dataset are its own.
        config = dataclasses.replace(
            config,
            dataset=dataset,
            hold_out=0.0,
            val_fraction=0.0,
            patience=None,
            train_examples=None,
            label_noise=0.0,
        )
        dataset = None
    config = validated(config, dataset=dataset, model=model)
    options = configs.dataset_options(config)
    if split == "validation" and not config.val_fraction:
        raise UserError(
            "`split` is validation, but the run has no `val_fraction`, by which training draws "
            "that split; expected train, val or test"
        )
    is_split = config.val_fraction or config.label_noise or config.train_examples is not None
    if dataset is None and is_split and split in ("train", "validation"):
        dataset = open_dataset(config.dataset, **options)
    if dataset is None:
        return open_split(config.dataset, split, **options)
    dataset = split_training_set(
        dataset,
        val_fraction=config.val_fraction,
        train_examples=config.train_examples,
        label_noise=config.label_noise,
        seed=config.seed,
    )
    return split_of(dataset, config.dataset, split)


def _info(test: Split) -> DatasetInfo:
    """Return a description for a run of an earlier version, which has none of its own dataset."""
    height, width, channels = test.images.shape[1:]
    return DatasetInfo(test.class_names, (height, width, channels), 0)


def _matched(
    names: Sequence[str], names_of_run: Sequence[str], dataset: str
) -> Int[np.ndarray, " classes"]:
    """Return the run's label of each class of a test set.

    Raises:
      UserError: a class is unknown to the run.
    """
    known = {composed(name): i for i, name in enumerate(names_of_run)}
    if unknown := [name for name in names if composed(name) not in known]:
        raise UserError(
            f"{dataset} has classes that the network was not trained on: {', '.join(unknown)}; "
            f"expected {', '.join(names_of_run)}; rename or remove the others"
        )
    return np.array([known[composed(name)] for name in names], np.int32)


def _check_chosen(image: int, saliency: Sequence[int], num_images: int) -> None:
    for name, index in (("image", image), *(("saliency", index) for index in saliency)):
        if not 0 <= index < num_images:
            raise UserError(
                f"`{name}` is {index}; expected the index of a test image, 0 to {num_images - 1:,}"
            )


def _predict(classifier: Classifier, test: Split) -> Answers:
    if test.labels is not None:
        assert isinstance(test.images, np.ndarray)
        return Answers(test.images, test.labels, classifier.log_probs(test.images))
    from jaxcnn.data.stream import evaluation_batches  # late, because it imports Grain

    size = max(1, classifier.trained.config.eval_batch_size // classifier.views)
    images: Any = test.images
    batches = evaluation_batches(images, batch_size=size)
    parts = [(classifier.log_probs(b["image"]), b["label"], b["mask"]) for b in batches]
    log_probs, labels, mask = map(np.concatenate, zip(*parts, strict=True))
    if not mask.any():
        raise UserError(f"every image of {test.name} is bad; expected at least one good image")
    good = np.flatnonzero(mask)
    files = [images.paths[row] for row in good] if images.paths else ()
    return Answers(images.subset(good), labels[mask], log_probs[mask], files)


def _write(path: Path, evaluation: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(evaluation, indent=2) + "\n")
