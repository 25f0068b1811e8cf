"""Measure speed compared with PyTorch and plain linen."""

import dataclasses
import inspect
import itertools
import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxcnn.cli import output_file, placeholder, run_command
from jaxcnn.errors import UserError, lookup

# The flags that each --what reads, besides --rounds and --json.
COMPARISON = ("against", "batch_size", "image_size", "seconds", "dtype", "figure")
FLAGS = {
    **{"train": COMPARISON, "infer": COMPARISON, "epoch": COMPARISON},
    **{"startup": (), "input": ("dataset", "seconds"), "scale": ("batch_size", "seconds")},
}

RANGES = {
    "rounds": (1, 1000),
    "seconds": (0.001, 3600),  # of one turn
    "batch_size": (1, 2**20),
    "image_size": (1, 2**12),
}


def benchmark(
    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")],
    what: Literal["train", "infer", "epoch", "startup", "input", "scale"] = "train",
    against: str = "torch,linen",
    batch_size: tuple[int, ...] = (64,),
    image_size: Annotated[tuple[int, ...], placeholder("INT ...")] = (),
    dataset: Annotated[str | None, placeholder("DATASET")] = None,
    rounds: int = 5,
    seconds: float = 2.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    json: Annotated[Path | None, placeholder("FILE")] = None,
    figure: Annotated[Path | None, placeholder("FILE")] = None,
) -> None:
    """Measure a network's speed and that of other frameworks, and print a table.

    The sides alternate; each round measures all of them.

    Args:
        network: network in jaxcnn.models.MODELS; lenet5, alexnet and alexnet-2012 have sides in
            linen and PyTorch, lenet5-1998, alexnet-32 and cuda-convnet-18pct in PyTorch. For
            --what input, a preset.
        what: quantity to measure. train: training steps. infer: forward passes. epoch: epochs of
            60,000 images of 28x28 (lenet5 networks). startup: seconds from the command to the first
            step (jaxcnn alone). input: how fast images reach a preset's step, and how fast the step
            uses them. scale: cost of a step on several devices, and the prediction for GPUs and
            TPUs (lenet5 and alexnet, float32).
        against: sides, separated by commas: linen, torch (the fastest variant), torch-eager,
            torch-channels-last, torch-compile, onnxruntime (--what infer, every network).
        batch_size: images in a batch, one or several sizes.
        image_size: height and width of the images, one or several; by default the network's own.
        dataset: dataset that replaces the preset's, for --what input.
        rounds: number of turns of each side.
        seconds: shortest duration of a turn.
        dtype: type of the computation.
        json: file to write: every round, versions and the machine.
        figure: picture to draw: time over the sizes, if there are several.
    """
    check(locals())
    json = output_file("json", json) if json is not None else None
    figure = output_file("figure", figure) if figure is not None else None
    from rich.console import Console

    from jaxcnn.benchmarks.compare import compare
    from jaxcnn.benchmarks.job import Job
    from jaxcnn.benchmarks.startup import measure_startup, print_startup
    from jaxcnn.benchmarks.table import figures, print_comparison

    console = Console(highlight=False, width=110)
    if what == "startup":
        train = (sys.executable, "-m", "jaxcnn", "train")
        found = [measure_startup(train, network, rounds=rounds, say=console.print)]
        print_startup(found[0], console)
    elif what == "input":
        from jaxcnn.benchmarks.input import measure_input, print_input
        from jaxcnn.presets import PRESETS

        config = lookup("preset", network, PRESETS).config
        if dataset:
            config = dataclasses.replace(config, dataset=dataset)
        found = [measure_input(config, rounds=rounds, seconds=seconds, say=console.print)]
        print_input(found[0], console)
    elif what == "scale":
        from jaxcnn.benchmarks.scaling import measure_scale, print_scale

        found = []
        for batch in batch_size:
            found.append(
                measure_scale(network, batch, rounds=rounds, seconds=seconds, say=console.print)
            )
            print_scale(found[-1], console)
    else:
        sides = against.split(",") if against else []
        found = []
        for size, batch in itertools.product(image_size or (None,), batch_size):
            job = Job("", "", network, what, batch, dtype, size)
            measured = compare(job, sides, rounds=rounds, seconds=seconds, say=console.print)
            print_comparison(measured, console)
            by_side = {side: dataclasses.asdict(it) for side, it in figures(measured).items()}
            found.append({**measured, "figures": by_side})
    if json:
        json.write_text(json_module.dumps(found, indent=2) + "\n")
    if figure:
        from jaxcnn.benchmarks.growth import save_growth  # late, because it imports jax

        save_growth(found, figure)


def check(given: dict[str, Any]) -> None:
    """Check the arguments of `benchmark`.

    Raises:
      UserError: an argument is out of range, or does not go with another one.
    """
    what, figure = given["what"], given["figure"]
    for name in sorted({*COMPARISON, "dataset"}.difference(FLAGS[what])):
        if given[name] != inspect.signature(benchmark).parameters[name].default:
            goes_with = ", ".join(of for of, names in FLAGS.items() if name in names)
            raise UserError(
                f"`{name}` only applies to `what` {goes_with}, and `what` is {what}; "
                f"remove `{name}`"
            )
    if not given["batch_size"]:
        raise UserError("`batch_size` is empty; expected one or several sizes")
    for name, (low, high) in RANGES.items():
        values = given[name] if isinstance(given[name], tuple) else (given[name],)
        shown = " ".join(map(str, values))
        if not all(low <= value <= high for value in values):
            raise UserError(f"`{name}` is {shown}; expected a value in [{low}, {high:,}]")
        if len({*values}) < len(values):
            raise UserError(f"`{name}` is {shown}; expected different sizes; remove one")
    if figure and (len(given["batch_size"]) > 1) == (len(given["image_size"]) > 1):
        raise UserError("`figure` requires several values of either `batch_size` or `image_size`")


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(benchmark)
