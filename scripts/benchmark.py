"""Our speed beside others': python scripts/benchmark.py NETWORK --against torch,linen."""

import dataclasses
import inspect
import itertools
import json as json_module
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxcnn.cli import one_line_errors
from jaxcnn.errors import UserError, flag, lookup

# Flags that go with some of --what alone: of train, infer and epoch, and of the others.
OF_COMPARISONS = ("against", "batch_size", "image_size", "seconds", "dtype", "figure")
OF = {"startup": (), "input": ("dataset", "seconds"), "scale": ("batch_size", "seconds")}


def main(
    network: Annotated[str, tyro.conf.Positional],
    what: Literal["train", "infer", "epoch", "startup", "input", "scale"] = "train",
    against: str = "torch,linen",
    batch_size: tuple[int, ...] = (64,),
    image_size: tuple[int, ...] = (),
    dataset: str | None = None,
    rounds: int = 5,
    seconds: float = 2.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    json: Path | None = None,
    figure: Path | None = None,
) -> None:
    """Measure a network's speed beside PyTorch's and plain linen's, in turns, and print a table.

    Args:
        network: lenet5, alexnet or alexnet-2012; of the rest of jaxcnn.models.MODELS, ours alone.
            For --what input a preset, as alexnet-cifar10-32.
        what: training steps, forward passes, epochs of 60,000 images of 28x28 (of the lenet5
            networks), the seconds from the command to their first step (ours alone), how fast
            images come to a preset's step beside how fast it uses them, or how a step's cost grows
            with devices and what it is predicted to be on GPUs and TPUs (lenet5 and alexnet,
            float32).
        against: of linen, torch (the fastest way of it) and one way of it, as torch-eager,
            torch-channels-last or torch-compile; with commas between.
        batch_size: images in a batch; several are measured one after the other.
        image_size: height and width of the images, one or several; by default the network's own.
        dataset: of --what input, in the place of the preset's, as folder:DIR.
        rounds: turns of each side.
        seconds: of a turn, at least.
        dtype: of the computation.
        json: a file for every round, versions and the machine.
        figure: a picture of the time over the sizes, where several are measured.
    """
    check(locals())
    from rich.console import Console

    from jaxcnn.benchmarks.compare import compare
    from jaxcnn.benchmarks.job import Job
    from jaxcnn.benchmarks.startup import measure_startup, print_startup
    from jaxcnn.benchmarks.table import figures, print_comparison

    console = Console(highlight=False, width=110)
    if what == "startup":
        script = Path(__file__).with_name("train.py")
        found = [measure_startup(script, network, rounds=rounds, say=console.print)]
        print_startup(found[0], console)
    elif what == "input":
        from jaxcnn import PRESETS
        from jaxcnn.benchmarks.input import measure_input, print_input

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
        sides = [side for side in against.split(",") if side]
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
        from jaxcnn.benchmarks.growth import save_growth  # late: it takes jax along, see `compare`

        save_growth(found, figure)


def check(given: dict[str, Any]) -> None:
    """Refuses arguments of `main` that do not go together."""
    what, figure = given["what"], given["figure"]
    for name in sorted({*OF_COMPARISONS, "dataset"}.difference(OF.get(what, OF_COMPARISONS))):
        if given[name] != inspect.signature(main).parameters[name].default:
            raise UserError(f"{flag(name)} is not of --what {what}")
    for file in (given["json"], figure):
        if file and not file.parent.is_dir():
            raise UserError(f"there is no folder {file.parent} to write {file.name} into")
        if file and file.is_dir():
            raise UserError(f"{file} is a folder; name a file to write")
    sizes = {name: given[f"{name}_size"] for name in ("batch", "image")}
    for name, its in sizes.items():
        if len({*its}) < len(its):
            raise UserError(f"--{name}-size has a size twice: {' '.join(map(str, its))}")
    if figure and (len(sizes["batch"]) > 1) == (len(sizes["image"]) > 1):
        raise UserError("--figure needs several of --batch-size, or else of --image-size")


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main)
