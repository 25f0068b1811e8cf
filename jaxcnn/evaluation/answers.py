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

from jaxcnn.data.folders import image_files, shown
from jaxcnn.errors import RunError, UserError, one_line
from jaxcnn.evaluation import inputs
from jaxcnn.evaluation.inputs import Prepare
from jaxcnn.evaluation.pictures import label, save_images
from jaxcnn.evaluation.predict import Answer, Classifier

MOST_DRAWN = 100  # images of a contact sheet

Format = Literal["table", "json", "csv"]


def find_images(arguments: Iterable[str]) -> Iterator[str | Answer]:
    """Yield the paths of image files, in order; an argument without images is an error in place.

    Args:
      arguments: paths of files; folders, whose images are found at any depth; patterns of files and
        folders such as "scans/*.png", if no file has that name; "-" for paths of files and folders
        on standard input, one a line.
    """
    for argument in arguments:
        if argument == "-":
            is_empty = True
            for line in sys.stdin or ():  # None if it is closed
                if path := line.rstrip("\r\n"):
                    is_empty = False
                    yield from _found(path)
            if is_empty:
                error = UserError("standard input names no image; expected paths, one a line")
                yield Answer("-", error=error)
        elif os.path.lexists(argument) or not glob.has_magic(argument):
            yield from _found(argument)
        elif paths := sorted(glob.glob(argument, recursive=True)):
            for path in paths:
                if "**" not in argument:
                    yield from _found(path)
                elif not os.path.isdir(path):  # the pattern itself matches what is inside
                    yield path
        else:
            yield Answer(argument, error=UserError(f"no file matches {shown(argument)}"))


def _found(path: str) -> Iterable[str | Answer]:
    """Return the images of a folder, or the path of anything else."""
    if not os.path.isdir(path):
        return [path]
    try:
        if paths := image_files(path):
            return paths
        error = UserError(f"{shown(path)} is a folder without images; expected image files in it")
    except UserError as unreadable:
        error = unreadable
    return [Answer(path, error=error)]


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
            print(f"error: {one_line(answer.error)}", file=sys.stderr)
        elif len(drawn) < MOST_DRAWN and (figure or show_prepared):
            drawn.append(answer)
        write(answer)
    titles, subject = [_title(answer, names) for answer in drawn], classifier.trained.name
    if figure and drawn:
        thumbnails = [inputs.thumbnail(a.path, max_value=classifier.max_value) for a in drawn]
        save_images(thumbnails, titles, figure, subject=subject)
    if show_prepared and drawn:
        prepared = [answer.image for answer in drawn if answer.image is not None]
        save_images(prepared, titles, show_prepared, subject=f"{subject}: what the network sees")
    if num_bad:
        raise RunError(f"{num_bad:,} of {count:,} images have no answer; see the errors above")


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
            print(f"{columns}  {shown(answer.path)}")

    return write


def _json(names: Sequence[str], top: int) -> Callable[[Answer], None]:
    def write(answer: Answer) -> None:
        if answer.error:
            content: dict[str, Any] = {"error": one_line(answer.error)}
        else:
            best = _best(answer, names, top)
            content = {"answers": [{"class": n, "probability": round(p, 6)} for n, p in best]}
        print(json.dumps({"file": answer.path, **content}, allow_nan=False))

    return write


def _csv(names: Sequence[str], top: int) -> Callable[[Answer], None]:
    # Python 3.11 does not quote a carriage return, unless all text is quoted.
    writer = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    columns = [f"{column}_{i + 1}" for i in range(top) for column in ("class", "probability")]
    writer.writerow(["file", *columns, "error"])

    def write(answer: Answer) -> None:
        # Bytes of a name that are not UTF-8 become \xNN; standard output would lose them.
        path = answer.path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        if answer.error:
            writer.writerow([path, *[""] * 2 * top, one_line(answer.error)])
        else:
            best = _best(answer, names, top)
            cells = [cell for name, value in best for cell in (name, round(value, 6))]
            writer.writerow([path, *cells, ""])

    return write
