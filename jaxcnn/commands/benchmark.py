"""Measure speed compared with PyTorch and plain linen."""

import dataclasses
import functools
import inspect
import itertools
import json as json_module
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import tyro

from jaxcnn.cli import output_file, placeholder, run_command
from jaxcnn.errors import UserError, lookup

# The flags that each --what reads, besides --rounds and --json.
COMPARISON = ("against", "batch_size", "image_size", "seconds", "dtype", "figure")
FLAGS = {
    **{"train": COMPARISON, "infer": COMPARISON, "epoch": COMPARISON},
    **{"startup": (), "input": ("dataset", "seconds"), "scale": ("batch_size", "seconds")},
    **{"notebook": ("flags",), "accuracy": ("flags",)},
}
What = Literal["train", "infer", "epoch", "startup", "input", "scale", "notebook", "accuracy"]

RANGES = {
    "rounds": (1, 1000),
    "seconds": (0.001, 3600),  # of one turn
    "batch_size": (1, 2**20),
    "image_size": (1, 2**12),
}

TRAIN = (sys.executable, "-m", "jaxcnn", "train")


def benchmark(
    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")] = "lenet5",
    what: What = "train",
    against: str = "torch,linen",
    batch_size: tuple[int, ...] = (64,),
    image_size: Annotated[tuple[int, ...], placeholder("INT ...")] = (),
    dataset: Annotated[str | None, placeholder("DATASET")] = None,
    flags: str = "",
    rounds: int = 5,
    seconds: float = 2.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    json: Annotated[Path | None, placeholder("FILE")] = None,
    figure: Annotated[Path | None, placeholder("FILE")] = None,
    report: Annotated[Path | None, placeholder("FILE")] = None,
    minutes: Annotated[float | None, placeholder("MINUTES")] = None,
) -> None:
    """Measure a network's speed and that of other frameworks, and print a table.

    The sides alternate; each round measures all of them.

    Args:
        network: network in jaxcnn.models.MODELS; lenet5, alexnet and alexnet-2012 have sides in
            linen and PyTorch, lenet5-relu, lenet5-1998, alexnet-32 and cuda-convnet-18pct in
            PyTorch. For --what input and accuracy, a preset.
        what: quantity to measure. train: training steps. infer: forward passes. epoch: epochs of
            60,000 images of 28x28 (lenet5 networks). startup: seconds from the command to the first
            step (jaxcnn alone). input: how fast images reach a preset's step, and how fast the step
            uses them. scale: cost of a step on several devices, and the prediction for GPUs and
            TPUs (lenet5 and alexnet, float32). notebook: seconds of the course notebook's LeNet-5
            job and of ours. accuracy: seconds from the command to the test accuracy of a preset,
            one seed a round, with an empty and with a warm cache; and of the recipes of LeNet-5
            with Adam also in PyTorch.
        against: sides, separated by commas: linen, torch (the fastest variant), torch-eager,
            torch-channels-last, torch-compile, onnxruntime (--what infer, every network).
        batch_size: images in a batch, one or several sizes.
        image_size: height and width of the images, one or several; by default the network's own.
        dataset: dataset that replaces the preset's, for --what input.
        flags: flags of train.py in one argument, for --what notebook and accuracy.
        rounds: number of turns of each side.
        seconds: shortest duration of a turn.
        dtype: type of the computation.
        json: file to write: every round, versions and the machine.
        figure: picture to draw: time and memory over the sizes, if there are several.
        report: Markdown page to write: a section with all benchmarks of this machine. Results are
            kept beside it, in a file with the extension .json, so that the same command continues.
        minutes: time after which --report starts no further benchmark.
    """
    given = SimpleNamespace(**locals())
    check(vars(given))
    json = output_file("json", json) if json is not None else None
    figure = output_file("figure", figure) if figure is not None else None
    if report is not None:
        from jaxcnn.benchmarks.machine_report import write_report

        page, say = output_file("report", report), functools.partial(print, flush=True)
        write_report(page, rounds=rounds, seconds=seconds, minutes=minutes, say=say)
        return
    from rich.console import Console

    console = Console(highlight=False, width=110)
    measure = {
        **{"startup": _startup, "input": _input, "scale": _scale},
        **{"notebook": _whole_runs, "accuracy": _whole_runs},
    }.get(what, _compare)
    found = measure(given, console)
    if json:
        json.write_text(json_module.dumps(found, indent=2) + "\n")
    if figure:
        from jaxcnn.benchmarks.growth import cliffs, save_growth

        save_growth(found, figure)
        console.print(cliffs(found))


def _startup(given: Any, console: Any) -> list[dict[str, Any]]:
    from jaxcnn.benchmarks.startup import measure_startup, print_startup

    found = measure_startup(TRAIN, given.network, rounds=given.rounds, say=console.print)
    print_startup(found, console)
    return [found]


def _input(given: Any, console: Any) -> list[dict[str, Any]]:
    from jaxcnn.benchmarks.input import measure_input, print_input
    from jaxcnn.presets import PRESETS

    config = lookup("preset", given.network, PRESETS).config
    if given.dataset:
        config = dataclasses.replace(config, dataset=given.dataset)
    found = measure_input(config, rounds=given.rounds, seconds=given.seconds, say=console.print)
    print_input(found, console)
    return [found]


def _scale(given: Any, console: Any) -> list[dict[str, Any]]:
    from jaxcnn.benchmarks.scaling import measure_scale, print_scale

    found = []
    turns = {"rounds": given.rounds, "seconds": given.seconds, "say": console.print}
    for batch in given.batch_size:
        found.append(measure_scale(given.network, batch, **turns))
        print_scale(found[-1], console)
    return found


def _whole_runs(given: Any, console: Any) -> list[dict[str, Any]]:
    from jaxcnn.benchmarks.whole_runs import measure_accuracy, measure_notebook, print_runs
    from jaxcnn.presets import PRESETS

    flags, options = shlex.split(given.flags), {"rounds": given.rounds, "say": console.print}
    if given.what == "notebook":
        found = measure_notebook(TRAIN, flags, **options)
    else:
        lookup("preset", given.network, PRESETS)
        found = measure_accuracy(TRAIN, given.network, flags, **options)
    print_runs(found, console)
    return [found]


def _compare(given: Any, console: Any) -> list[dict[str, Any]]:
    from jaxcnn.benchmarks.compare import compare
    from jaxcnn.benchmarks.job import Job
    from jaxcnn.benchmarks.table import figures, print_comparison

    found = []
    sides = given.against.split(",") if given.against else []
    turns = {"rounds": given.rounds, "seconds": given.seconds, "say": console.print}
    for size, batch in itertools.product(given.image_size or (None,), given.batch_size):
        job = Job("", "", given.network, given.what, batch, given.dtype, size)
        measured = compare(job, sides, **turns)
        print_comparison(measured, console)
        by_side = {side: dataclasses.asdict(it) for side, it in figures(measured).items()}
        found.append({**measured, "figures": by_side})
    return found


def check(given: dict[str, Any]) -> None:
    """Check the arguments of `benchmark`.

    Raises:
      UserError: an argument is out of range, or does not go with another one.
    """
    what, figure, report = given["what"], given["figure"], given["report"]
    if given["minutes"] is not None and not (report and given["minutes"] > 0):
        raise UserError(
            f"`minutes` is {given['minutes']:g}; expected a positive number, together with "
            "`report`; remove `minutes`"
        )
    readable = ("seconds",) if report else FLAGS[what]
    if report and given["network"] != "lenet5":
        raise UserError(
            f"`report` measures networks of its own; remove {given['network']!r}, or `report`"
        )
    others = ("what", "json") if report else ()
    for name in sorted({*COMPARISON, "dataset", "flags", *others}.difference(readable)):
        if report and given[name] != inspect.signature(benchmark).parameters[name].default:
            raise UserError(f"`report` measures with its own `{name}`; remove `{name}`")
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
