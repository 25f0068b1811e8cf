"""Evaluate a trained run: python scripts/evaluate.py RUN."""

from typing import Annotated, Literal

import tyro

from jaxcnn.cli import one_line_errors, placeholder


def main(
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    step: Annotated[int | Literal["best"] | None, placeholder("STEP|best")] = None,
    views: Annotated[Literal[1, 2, 5, 10] | None, placeholder("1|2|5|10")] = None,
    image: int = 0,
    data_dir: Annotated[str | None, placeholder("DIR")] = None,
    manual_dir: Annotated[str | None, placeholder("DIR")] = None,
) -> None:
    """Evaluate a run's checkpoint on the whole test set.

    Print tables and draw pictures into the run's folder.

    Args:
        run: folder that scripts/train.py wrote.
        step: step of the checkpoint, or best, the one of the best test accuracy; by default the
            latest.
        views: views averaged for each test image; by default as in the run. 1 is the central crop;
            2 adds its mirror image; 5 is the centre and the four corners; 10 is these and their
            mirror images.
        image: index of the test image whose feature maps are drawn.
        data_dir: folder of prepared datasets; by default as in the run.
        manual_dir: folder of original files to prepare from; by default as in the run.
    """
    from jaxcnn.evaluation.evaluate import evaluate_run  # late, because it imports jax

    evaluate_run(run, step=step, views=views, image=image, data_dir=data_dir, manual_dir=manual_dir)


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main)
