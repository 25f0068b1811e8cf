"""Answers for many image files: found, streamed through a network, and printed."""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcnn.data.folders import image_files
from jaxcnn.errors import RunError, UserError
from jaxcnn.evaluation import inputs
from jaxcnn.evaluation.inputs import Prepare
from jaxcnn.evaluation.pictures import label, save_images
from jaxcnn.evaluation.predict import Answer, Classifier

MOST_DRAWN = 100  # images of a contact sheet

Format = Literal["table", "json", "csv"]


def find_images(arguments: Iterable[str]) -> Iterator[str]:
    """Yield the paths of image files, in order and without a list of all.

    Args:
      arguments: paths of files; folders, whose images are found at any depth; patterns such as
        "scans/*.png", if no file has that name; "-" for paths on standard input, one a line.
    """
    for argument in arguments:
        if argument == "-":
            yield from filter(None, (line.rstrip("\n") for line in sys.stdin))
        elif os.path.isdir(argument):
            yield from _not_empty(image_files(argument), argument)
        elif os.path.lexists(argument) or not glob.has_magic(argument):
            yield argument
        else:
            yield from _not_empty(sorted(glob.glob(argument, recursive=True)), argument)


def _not_empty(paths: Iterable[str], argument: str) -> Iterator[str]:
    """Yield the paths, or the argument itself if there are none, which is then a bad image."""
    found = False
    for path in paths:
        found = True
        yield path
    if not found:
        yield argument


def answer_files(
    classifier: Classifier,
    arguments: Sequence[str],
    *,
    top: int = 3,
    form: Format = "table",
    prepare: Prepare = "auto",
    on_bad_image: Literal["report", "refuse"] = "report",
    figure: Path | None = None,
    show_prepared: Path | None = None,
) -> None:
    """Print the most probable classes of each image; memory does not grow with their number.

    Args:
      classifier: trained network.
      arguments: image files; see `find_images`.
      top: number of classes for each image.
      form: a line of text, a JSON object or a line of CSV for each image.
      prepare: see `Classifier.predict`.
      on_bad_image: "report" prints the error of a bad image and continues, "refuse" stops.
      figure: file for a picture of the first MOST_DRAWN images with their answers.
      show_prepared: file for a picture of the same images as the network received them.

    Raises:
      UserError: an image is bad and bad images are refused, or the number of classes is below 1.
      RunError: some images were bad.
    """
    if top < 1:
        raise UserError(f"`top` is {top}; expected at least 1")
    names = classifier.class_names
    write = {"table": _table, "json": _json, "csv": _csv}[form](names, min(top, len(names)))
    drawn: list[Answer] = []
    count = num_bad = 0
    for answer in classifier.stream(find_images(arguments), prepare=prepare):
        count += 1
        if answer.error:
            if on_bad_image == "refuse":
                raise answer.error
            num_bad += 1
            print(f"error: {answer.error}", file=sys.stderr)
        elif len(drawn) < MOST_DRAWN and (figure or show_prepared):
            drawn.append(answer)
        write(answer)
    titles, subject = [_title(answer, names) for answer in drawn], classifier.trained.name
    if figure:
        thumbnails = [inputs.thumbnail(answer.path) for answer in drawn]
        save_images(thumbnails, titles, figure, subject=subject)
    if show_prepared:
        prepared = [answer.image for answer in drawn if answer.image is not None]
        save_images(prepared, titles, show_prepared, subject=f"{subject}: what the network sees")
    if num_bad:
        raise RunError(f"{num_bad:,} of {count:,} images are bad; the errors above name them")


def _best(answer: Answer, names: Sequence[str], top: int) -> list[tuple[str, float]]:
    """Return the most probable classes and their probabilities, the most probable first."""
    assert answer.log_probs is not None
    order = np.argsort(-answer.log_probs, kind="stable")[:top]
    return [(names[i], float(np.exp(answer.log_probs[i]))) for i in order]


def _title(answer: Answer, names: Sequence[str]) -> str:
    ((name, probability),) = _best(answer, names, 1)
    return f"{label(name, 12)} {probability:.1%}\n{label(os.path.basename(answer.path), 16)}"


def _table(names: Sequence[str], top: int) -> Callable[[Answer], None]:
    width = max(map(len, names))

    def write(answer: Answer) -> None:
        if not answer.error:
            best = _best(answer, names, top)
            columns = "  ".join(f"{name:{width}} {value:6.1%}" for name, value in best)
            print(f"{columns}  {answer.path}")

    return write


def _json(names: Sequence[str], top: int) -> Callable[[Answer], None]:
    def write(answer: Answer) -> None:
        if answer.error:
            content: dict[str, Any] = {"error": str(answer.error)}
        else:
            best = _best(answer, names, top)
            content = {"answers": [{"class": n, "probability": round(p, 6)} for n, p in best]}
        print(json.dumps({"file": answer.path, **content}))

    return write


def _csv(names: Sequence[str], top: int) -> Callable[[Answer], None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = [f"{column}_{i + 1}" for i in range(top) for column in ("class", "probability")]
    writer.writerow(["file", *columns, "error"])

    def write(answer: Answer) -> None:
        if answer.error:
            writer.writerow([answer.path, *[""] * 2 * top, str(answer.error)])
        else:
            best = _best(answer, names, top)
            cells = [cell for name, value in best for cell in (name, f"{value:.6f}")]
            writer.writerow([answer.path, *cells, ""])

    return write
