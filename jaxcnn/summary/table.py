"""Print a network as a table and mark where its figures agree with the published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from jaxcnn.summary.published import Published
from jaxcnn.summary.summarize import Layer, Summary


def print_summary(
    title: str, summary: Summary, published: Published | None, console: Console
) -> None:
    """Print the layers of a network as a table.

    Args:
      title: title of the table.
      summary: layers of the network.
      published: figures to compare with, or None to print no marks.
      console: console to print to.
    """
    layers, total = (published.layers, published.total) if published else ({}, {})
    columns = {*total, *(column for layer in layers.values() for column in layer)}
    headings = {
        "output": "output",
        **({"units": "units"} if "units" in columns else {}),
        "parameters": "parameters",
        **({"connections": "connections"} if "connections" in columns else {}),
        "multiply_adds": "mult-adds",
        "receptive_field": "field",
    }
    table = Table("layer", "operation", title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings.values():
        table.add_column(heading, justify="right", no_wrap=True)

    def add(name: str, operation: str, ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
        cells = [_cell(ours.get(column), theirs.get(column)) for column in headings]
        table.add_row(name, operation, *cells)

    shape = summary.input_shape
    add("input", "", {"output": shape, "units": math.prod(shape)}, layers.get("input", {}))
    for layer in summary.layers:
        ours = {
            "output": layer.output_shape,
            "units": layer.units,
            "parameters": layer.parameters,
            "connections": layer.connections,
            "multiply_adds": layer.multiply_adds,
            "receptive_field": layer.receptive_field,
        }
        add(layer.name, layer.operation, ours, layers.get(layer.name, {}))
    table.add_section()
    totals = {
        name: getattr(summary, name) for name in ("parameters", "connections", "multiply_adds")
    }
    add("total", "", totals, total)
    console.print(table)
    console.print(
        "For one image, forward. field: height and width of a unit's receptive field in the input."
    )
    console.print(_tpu_use(summary))
    if published:
        console.print(
            "[green]✓[/] equals the published figure; [red]✗[/] differs from the one behind it."
        )
        console.print(f"Published: {published.source}", highlight=False)
        if published.note:
            console.print(published.note, highlight=False)


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
    return f"{text} [bold red]✗ {_text(theirs)}[/]"


def _text(figure: Any) -> str:
    if isinstance(figure, tuple):
        return "x".join(map(str, figure))
    return f"{figure:,}" if figure else ""
