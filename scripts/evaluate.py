"""Evaluate a trained run: python scripts/evaluate.py RUN."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxcnn.cli import one_line_errors


def main(
    run: Annotated[Path, tyro.conf.Positional],
    step: int | Literal["best"] | None = None,
    views: Literal[1, 2, 5, 10] | None = None,
    image: int = 0,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> None:
    """Evaluate a run's checkpoint on the whole test set: tables, and pictures in the run's folder.

    Args:
        run: the folder that scripts/train.py wrote.
        step: which checkpoint, or best, of the best test accuracy; by default the latest.
        views: of each test image, to average over; by default as the run had it. The central crop;
            or two, with its mirror image; or five, with the corners; or ten, those and theirs.
        image: the test image whose feature maps are drawn.
        data_dir: where prepared datasets are; by default as the run had it.
        manual_dir: files the dataset is prepared from instead of a download.
    """
    from jaxcnn.evaluation.evaluate import evaluate_run  # after the parsing: it takes jax along

    evaluate_run(run, step=step, views=views, image=image, data_dir=data_dir, manual_dir=manual_dir)


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main)
