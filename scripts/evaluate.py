"""Evaluate a trained run: python scripts/evaluate.py RUN."""

from pathlib import Path
from typing import Annotated

import tyro

from jaxcnn.errors import one_line_errors


def main(
    run: Annotated[Path, tyro.conf.Positional],
    step: int | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> None:
    """Evaluate a run's checkpoint on the whole test set: tables, and pictures in the run's folder.

    Args:
        run: the folder that scripts/train.py wrote.
        step: which checkpoint; by default the latest.
        data_dir: where prepared datasets are; by default as the run had it.
        manual_dir: files the dataset is prepared from instead of a download.
    """
    from jaxcnn.train import evaluate_run  # after the parsing: it takes jax along

    evaluate_run(run, step=step, data_dir=data_dir, manual_dir=manual_dir)


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main)
