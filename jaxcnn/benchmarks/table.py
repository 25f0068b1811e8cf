"""The result of a comparison, as figures and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxcnn.benchmarks.job import full_name


@dataclasses.dataclass(frozen=True)
class Figures:
    """The figures of one side: medians over the rounds.

    Attributes:
      images_per_second: images per second.
      step_ms: milliseconds per step.
      ratios: jaxcnn's images/s over this side's in the same round: median, minimum, maximum.
      gflops: 10^9 useful operations per second, two for each multiply-add.
      of_matmul: `gflops` as a fraction of the rate of matrix products in the same round.
      peak_mib: peak memory of the process.
      compile_seconds: duration of the first step minus that of the second.
    """

    images_per_second: float
    step_ms: float
    ratios: tuple[float, float, float]
    gflops: float
    of_matmul: float
    peak_mib: float
    compile_seconds: float


def figures(comparison: Mapping[str, Any]) -> dict[str, Figures]:
    """Return the figures of each side from the result of `compare`."""
    rounds: Sequence[Mapping[str, Mapping[str, float]]] = comparison["rounds"]
    sides: Mapping[str, Mapping[str, Any]] = comparison["sides"]
    # Only jaxcnn's side counts its operations; the useful work of the other sides is the same.
    flops = dict.fromkeys(sides, sides["jaxcnn"]["flops"]) | {"matmul": sides["matmul"]["flops"]}

    def rates(side: str) -> list[float]:
        return [turns[side]["steps"] / turns[side]["seconds"] for turns in rounds]

    products = [rate * flops["matmul"] for rate in rates("matmul")]
    found = {}
    for side in sides:
        if side == "matmul":
            continue
        operations = [rate * flops[side] for rate in rates(side)]
        ratios = [ours / theirs for ours, theirs in zip(rates("jaxcnn"), rates(side), strict=True)]
        parts = [mine / best for mine, best in zip(operations, products, strict=True)]
        found[side] = Figures(
            images_per_second=median(rates(side)) * comparison["images_per_step"],
            step_ms=1000 / median(rates(side)),
            ratios=(median(ratios), min(ratios), max(ratios)),
            gflops=median(operations) / 1e9,
            of_matmul=median(parts),
            peak_mib=max(turns[side]["peak_mib"] for turns in rounds),
            compile_seconds=sides[side]["compile_seconds"],
        )
    return found


def print_comparison(comparison: Mapping[str, Any], console: Console) -> None:
    """Print the figures as a table, with the machine."""
    sides = comparison["sides"]
    title = "{network}, {what}, batch {batch_size}, {dtype}".format_map(comparison)
    if (size := comparison["image_size"]) is not None:
        title += f", images of {size}x{size}"
    step = "epoch" if comparison["what"] == "epoch" else "step"
    table = Table("side", title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    headings = ("images/s", f"ms/{step}", "jaxcnn is", "GFLOP/s", "of matmul", "peak MiB")
    for heading in (*headings, "compile s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for side, found in figures(comparison).items():
        ratio, least, largest = found.ratios
        table.add_row(
            full_name(side, sides[side]["variant"]),
            short(found.images_per_second),
            short(found.step_ms),
            "" if side == "jaxcnn" else f"{ratio:.2f}x ({least:.2f}-{largest:.2f})",
            short(found.gflops),
            f"{found.of_matmul:.0%}",
            f"{found.peak_mib:,.0f}",
            f"{found.compile_seconds:.1f}",
        )
    console.print(table)
    matmul = sides["matmul"]["flops"] * median(
        turns["matmul"]["steps"] / turns["matmul"]["seconds"] for turns in comparison["rounds"]
    )
    versions = {"python": comparison["python"]}
    for facts in sides.values():
        versions |= facts["versions"]
    console.print(
        escape(
            f"{comparison['device']}, {comparison['cpu_count']} cores; "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
            + f"; matrix products at {short(matmul / 1e9)} GFLOP/s.\n"
            f"Medians of {len(comparison['rounds'])} rounds; in brackets, the smallest and the "
            "largest ratio of a round."
        )
    )
    for side, facts in sides.items():
        if len(turns := facts.get("first_turns", {})) > 1:
            rates = (
                f"{variant} {short(rate * comparison['images_per_step'])}"
                for variant, rate in turns.items()
            )
            console.print(f"Variants of {side} in a first turn, images/s: {', '.join(rates)}.")
    by_reason: dict[str, list[str]] = {}
    for name, reason in comparison["left_out"].items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        console.print(escape(f"left out: {', '.join(names)} ({reason})"), soft_wrap=True)


def short(figure: float) -> str:
    """Format a number with three digits, or with all digits before the point."""
    digits = max(0, 2 - len(str(int(abs(figure)))) + 1)
    return f"{figure:,.{digits}f}"
