"""Classify images with a trained network."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxcnn.cli import output_file, placeholder, run_command
from jaxcnn.errors import UserError
from jaxcnn.paths import local_path
from jaxcnn.workdir.folder import read_config


def predict(
    arguments: Annotated[tuple[str, ...], tyro.conf.Positional, placeholder("[RUN] IMAGE...")] = (),
    pretrained: Annotated[str | None, placeholder("NAME")] = None,
    list_pretrained: bool = False,
    top: int = 3,
    json: bool = False,
    csv: bool = False,
    figure: Annotated[Path | None, placeholder("FILE")] = None,
    views: Annotated[Literal[1, 2, 5, 10] | None, placeholder("1|2|5|10")] = None,
    prepare: Literal["auto", "digit", "none"] = "auto",
    show_prepared: Annotated[Path | None, placeholder("FILE")] = None,
    max_value: Annotated[float | None, placeholder("N")] = None,
    on_bad_image: Literal["report", "refuse"] = "report",
    step: Annotated[int | Literal["best"] | None, placeholder("STEP|best")] = None,
    data_dir: Annotated[str | None, placeholder("DIR")] = None,
) -> None:
    """Print the most probable classes of images, a line for each.

    Args:
        arguments: folder of a run, unless --pretrained is set; then image files, folders of images,
            patterns such as 'scans/*.png', or - for paths on standard input, one a line.
        pretrained: name of weights that the package ships, instead of a run.
        list_pretrained: list the weights that the package ships.
        top: number of classes to print for each image.
        json: print a JSON object for each image.
        csv: print comma-separated values, with a header.
        figure: PNG file for the first 100 images with their answers.
        views: views of each image to average over; by default as in the run.
        prepare: preparation of each image. `digit` finds the digit on a photo or scan and brings it
            into MNIST's form; `none` scales the image; `auto` is `digit` for networks trained on
            MNIST.
        show_prepared: PNG file for the first 100 images as the network received them.
        max_value: largest value of 9- to 32-bit pixels; by default as in the run, else as each file
            says; 4095 for 12-bit data in 16-bit files.
        on_bad_image: policy for images that cannot be read. `report` names them, continues, and
            exits with status 1 at the end; `refuse` stops.
        step: step of the run's checkpoint, or best; by default the latest.
        data_dir: directory of prepared datasets, for runs of earlier versions.
    """
    if list_pretrained:
        from jaxcnn.interop.pretrained import print_cards

        print_cards()
        return
    if json and csv:
        raise UserError("`json` and `csv` are both set; expected one of them")
    run, images = (None, arguments) if pretrained else (arguments[:1], arguments[1:])
    if not images or run == ():
        raise UserError("there are no images; expected RUN IMAGE..., or --pretrained NAME IMAGE...")
    if run:
        read_config(local_path(run[0], "the run"))
    if figure is not None:
        figure = output_file("figure", figure)
    if show_prepared is not None:
        show_prepared = output_file("show_prepared", show_prepared)
    from jaxcnn.evaluation.answers import answer_files  # late: imports jax
    from jaxcnn.evaluation.predict import load

    classifier = load(
        run[0] if run else None,
        pretrained=pretrained,
        step=step,
        views=views,
        max_value=max_value,
        data_dir=data_dir,
    )
    answer_files(
        classifier,
        images,
        top=top,
        form="json" if json else "csv" if csv else "table",
        prepare=prepare,
        on_bad_image=on_bad_image,
        figure=figure,
        show_prepared=show_prepared,
    )


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(predict)
