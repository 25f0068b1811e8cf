"""Our speed beside others': python scripts/benchmark.py NETWORK --against torch,linen."""

import dataclasses
import json as json_module
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxcnn.errors import UserError, one_line_errors


def main(
    network: Annotated[str, tyro.conf.Positional],
    what: Literal["train", "infer", "epoch", "startup"] = "train",
    against: str = "torch,linen",
    batch_size: int = 64,
    rounds: int = 5,
    seconds: float = 2.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    json: Path | None = None,
) -> None:
    """Measure a network's speed beside PyTorch's and plain linen's, in turns, and print a table.

    Args:
        network: lenet5, alexnet or alexnet-2012; of the rest of jaxcnn.models.MODELS, ours alone.
        what: training steps, forward passes, epochs of 60,000 images of 28x28, or the seconds from
            the command to the first step (ours alone).
        against: of torch and linen, with a comma between.
        batch_size: images in a batch.
        rounds: turns of each side.
        seconds: of a turn, at least.
        dtype: of the computation.
        json: a file for every round, versions and the machine.
    """
    if json and not json.parent.is_dir():
        raise UserError(f"there is no folder {json.parent} to write {json.name} into")
    from rich.console import Console

    from jaxcnn.benchmarks.compare import compare
    from jaxcnn.benchmarks.job import Job
    from jaxcnn.benchmarks.startup import measure_startup, print_startup
    from jaxcnn.benchmarks.table import figures, print_comparison

    console = Console(highlight=False, width=110)
    if what == "startup":
        script = Path(__file__).with_name("train.py")
        found = measure_startup(script, network, rounds=rounds, say=console.print)
        print_startup(found, console)
    else:
        job = Job("", "", network, what, batch_size, dtype)
        sides = [side for side in against.split(",") if side]
        found = compare(job, sides, rounds=rounds, seconds=seconds, say=console.print)
        print_comparison(found, console)
        found["figures"] = {side: dataclasses.asdict(it) for side, it in figures(found).items()}
    if json:
        json.write_text(json_module.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main)
