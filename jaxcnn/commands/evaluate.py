"""Evaluate a trained run."""

from typing import Annotated, Any, Literal

import tyro

from jaxcnn.cli import placeholder, run_command
from jaxcnn.errors import UserError
from jaxcnn.paths import local_path
from jaxcnn.workdir.folder import read_config


def evaluate(
    run: Annotated[str | None, tyro.conf.Positional, placeholder("RUN")] = None,
    pretrained: Annotated[str | None, placeholder("NAME")] = None,
    step: Annotated[int | Literal["best"] | None, placeholder("STEP|best")] = None,
    views: Annotated[Literal[1, 2, 5, 10] | None, placeholder("1|2|5|10")] = None,
    image: int = 0,
    saliency: Annotated[tuple[int, ...], placeholder("IMAGE ...")] = (),
    embedding: bool = False,
    data_dir: Annotated[str | None, placeholder("DIR")] = None,
    manual_dir: Annotated[str | None, placeholder("DIR")] = None,
    dataset: Annotated[str | None, placeholder("DATASET")] = None,
    split: Annotated[
        Literal["train", "val", "validation", "test"] | None,
        placeholder("train|val|validation|test"),
    ] = None,
    output: Annotated[str | None, placeholder("DIR")] = None,
) -> None:
    """Evaluate a run's checkpoint on the whole test set.

    Print tables, and write evaluation.json and pictures into the run's folder.

    Args:
        run: folder that scripts/train.py wrote.
        pretrained: name of weights that the package ships, instead of a run; predict.py
            --list-pretrained lists them.
        step: step of the checkpoint, or best, the one of the best validation accuracy, or of the
            best test accuracy in a run without a validation split; by default the latest.
        views: views averaged for each test image; by default as in the run. 1 is the central crop;
            2 adds its mirror image; 5 is the centre and the four corners; 10 is these and their
            mirror images.
        image: index of the test image whose feature maps are drawn.
        saliency: test images for which saliency.png shows what the answer depends on, by Grad-CAM
            and by occlusion.
        embedding: draw embedding.png, the two principal components of the last layer but one.
        data_dir: folder of prepared datasets; by default as in the run.
        manual_dir: folder of original files to prepare from; by default as in the run.
        dataset: another dataset, such as folder:DIR, whose classes are matched by name.
        split: split of the dataset; by default the one that training tests on. validation is the
            one that --val-fraction drew, val the folder of images of that name.
        output: folder to write to; by default the run's, or runs/NAME-pretrained.
    """
    if (run is None) == (pretrained is None):
        raise UserError("expected either the folder of a run or --pretrained NAME")
    if run is not None:
        config = read_config(local_path(run, "the run"))
    # Late, because these import jax.
    from jaxcnn.evaluation.evaluate import evaluate_pretrained, evaluate_run
    from jaxcnn.training.cores import use_cores

    options: dict[str, Any] = {"views": views, "image": image, "dataset": dataset, "split": split}
    options |= {"saliency": saliency, "embedding": embedding}
    options |= {"data_dir": data_dir, "manual_dir": manual_dir, "output": output}
    if pretrained is not None:
        if step is not None:
            raise UserError(f"`step` is {step}, but pretrained weights have one step; remove it")
        evaluate_pretrained(pretrained, **options)
    elif run is not None:
        use_cores(config.model, config.eval_batch_size, train=False)
        evaluate_run(run, step=step, **options)


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(evaluate)
