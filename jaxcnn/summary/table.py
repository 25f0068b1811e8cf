"""Print a network as a table and mark where its figures agree with the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from jaxcnn.summary.published import Published, Rounded
from jaxcnn.summary.summarize import Layer, Summary

_WIDE = Console(width=1000)  # measures tables without a limit


def print_summary(
    title: str,
    summary: Summary,
    published: Published | None,
    console: Console,
    *,
    tpu: bool = False,
) -> None:
    """Print the layers of a network as a table, or as several where the console is narrow.

    Args:
      title: title of the table.
      summary: layers of the network.
      published: figures to compare with, or None to print no marks.
      console: console to print to.
      tpu: whether to print the useful share of a TPU's work.
    """
    layers, total = (published.layers, published.total) if published else ({}, {})
    columns = {*total, *(column for layer in layers.values() for column in layer)}
    headings = {
        "operation": "operation",
        "output": "output",
        **({"units": "units"} if "units" in columns else {}),
        "parameters": "parameters",
        **({"connections": "connections"} if "connections" in columns else {}),
        "multiply_adds": "mult-adds",
        "receptive_field": "field",
    }
    theirs = {**layers, "total": total}
    rows = [
        {column: _cell(ours.get(column), theirs.get(name, {}).get(column)) for column in headings}
        | {"layer": name}
        for name, ours in _figures(summary)
    ]
    for table in _tables(title, headings, rows, console):
        console.print(table)
    console.print(
        "For one image, forward. field: height and width of a unit's receptive field in the input."
    )
    if tpu:
        console.print(_tpu_use(summary))
    if published:
        console.print(
            "[green]✓[/] equals the published figure; [red]✗[/] differs from the one behind it."
        )
        if any(isinstance(figure, Rounded) for figure in total.values()):
            console.print("[green]≈[/] equals the published figure behind it, once rounded.")
        console.print(f"Published: {published.source}", highlight=False)
        if published.note:
            console.print(published.note, highlight=False)


def _figures(summary: Summary) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each row, and its figures by column."""
    shape = summary.input_shape
    yield "input", {"output": shape, "units": math.prod(shape)}
    for layer in summary.layers:
        yield (
            layer.name,
            {
                "operation": layer.operation,
                "output": layer.output_shape,
                "units": layer.units,
                "parameters": layer.parameters,
                "connections": layer.connections,
                "multiply_adds": layer.multiply_adds,
                "receptive_field": layer.receptive_field,
            },
        )
    totals = ("parameters", "connections", "multiply_adds")
    yield "total", {name: getattr(summary, name) for name in totals}


def _tables(
    title: str, headings: Mapping[str, str], rows: Sequence[Mapping[str, str]], console: Console
) -> Iterator[Table]:
    """Distribute columns over as few tables as fit; each begins with the names of the layers."""
    remaining = list(headings)
    while remaining:
        count = len(remaining)
        while (
            count > 1
            and _WIDE.measure(_table(title, headings, remaining[:count], rows)).maximum
            > console.width
        ):
            count -= 1
        yield _table(title, headings, remaining[:count], rows)
        title, remaining = "", remaining[count:]


def _table(
    title: str,
    headings: Mapping[str, str],
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
) -> Table:
    table = Table("layer", title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        if column == "operation":
            table.add_column(headings[column], max_width=22)
        else:
            table.add_column(headings[column], justify="right", no_wrap=True)
    for row in rows:
        if row is rows[-1]:
            table.add_section()
        table.add_row(row["layer"], *(row[column] for column in columns))
    return table


def _tpu_use(summary: Summary) -> str:
    """Describe the useful share of a TPU's work and the layers that waste more than a quarter."""

    def use(of: Layer | Summary) -> float:
        return of.multiply_adds / of.padded_multiply_adds

    wasteful = [
        f"{layer.name} {use(layer):.2%}"
        for layer in summary.layers
        if layer.padded_multiply_adds and use(layer) < 0.75
    ]
    return (
        f"In a TPU's units of 128x128, {use(summary):.2%} of the mult-adds are useful and the rest "
        f"is padding; layers below 75%: {', '.join(wasteful) or 'none'}."
    )


def _cell(ours: Any, theirs: Any) -> str:
    text = _text(ours)
    if theirs is None:
        return text
    if theirs == ours:
        return f"{text} [green]✓[/]"
    if isinstance(theirs, Rounded):
        mark = "[green]≈[/]" if theirs.agrees(ours) else "[bold red]✗[/]"
        return f"{text} {mark} {_text(theirs.figure)}"
    return f"{text} [bold red]✗ {_text(theirs)}[/]"


def _text(figure: Any) -> str:
    if isinstance(figure, tuple):
        return "x".join(map(str, figure))
    return f"{figure:,}" if isinstance(figure, int) and figure else figure or ""
