"""A network as a table, beside what its paper prints: where they agree, and where not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from jaxcnn.summary import Layer, Summary


@dataclasses.dataclass(frozen=True)
class Published:
    """Figures of one network, with the number of classes of its source.

    Attributes:
      source: where they are printed.
      layers: layer -> column -> figure, of the columns "output", "units", "parameters" and
        "connections"; what the source does not say is left out.
      total: column -> figure.
      note: what to know about a figure that is not ours.
    """

    source: str
    layers: Mapping[str, Mapping[str, Any]]
    total: Mapping[str, int]
    note: str = ""


PUBLISHED = {
    "lenet5-1998": Published(
        source='LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document '
        'Recognition", 1998, section II.B and figure 2.',
        layers={
            "input": {"output": (32, 32, 1)},
            "C1": {"output": (28, 28, 6), "parameters": 156, "connections": 122_304},
            "S2": {"output": (14, 14, 6), "parameters": 12, "connections": 5_880},
            "C3": {"output": (10, 10, 16), "parameters": 1_516, "connections": 151_600},
            "S4": {"output": (5, 5, 16), "parameters": 32, "connections": 2_000},
            "C5": {"output": (1, 1, 120), "parameters": 48_120, "connections": 48_120},
            "F6": {"output": (84,), "parameters": 10_164},
            "output": {"output": (10,)},
        },
        total={"parameters": 60_000, "connections": 340_908},
    ),
    "alexnet-2012": Published(
        source='Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional '
        'Neural Networks", 2012: units and maps from figure 2, parameters from the sizes of the '
        "kernels in section 3.5, each map and each unit with a bias.",
        layers={
            "input": {"output": (224, 224, 3), "units": 150_528},
            "conv1": {
                "output": (55, 55, 96),
                "units": 253_440,
                "parameters": 96 * (11 * 11 * 3 + 1),
            },
            "conv2": {
                "output": (27, 27, 256),
                "units": 186_624,
                "parameters": 256 * (5 * 5 * 48 + 1),
            },
            "conv3": {
                "output": (13, 13, 384),
                "units": 64_896,
                "parameters": 384 * (3 * 3 * 256 + 1),
            },
            "conv4": {
                "output": (13, 13, 384),
                "units": 64_896,
                "parameters": 384 * (3 * 3 * 192 + 1),
            },
            "conv5": {
                "output": (13, 13, 256),
                "units": 43_264,
                "parameters": 256 * (3 * 3 * 192 + 1),
            },
            "fc6": {"output": (4096,), "units": 4096},
            "fc7": {"output": (4096,), "units": 4096, "parameters": 4096 * (4096 + 1)},
            "fc8": {"output": (1000,), "units": 1000, "parameters": 1000 * (4096 + 1)},
        },
        total={},
        note="conv1: 55x55 maps, as the figure draws them, are 290,400 units; the 253,440 of its "
        "caption are 55 x 48 x 96.",
    ),
    "alexnet": Published(
        source="torchvision, the documentation of AlexNet_Weights.IMAGENET1K_V1.",
        layers={},
        total={"parameters": 61_100_840},
    ),
}

PUBLISHED["lenet5-1998-lecun-uniform"] = PUBLISHED["lenet5-1998"]


def print_summary(
    title: str, summary: Summary, published: Published | None, console: Console
) -> None:
    """The layers as a table; beside our figures, whether the published ones agree."""
    layers, total = (published.layers, published.total) if published else ({}, {})
    columns = {*total, *(column for layer in layers.values() for column in layer)}
    headings = {
        "output": "output",
        **({"units": "units"} if "units" in columns else {}),
        "parameters": "parameters",
        **({"connections": "connections"} if "connections" in columns else {}),
        "multiply_adds": "mult-adds",
        "sees": "sees",
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
            "sees": layer.receptive_field,
        }
        add(layer.name, layer.operation, ours, layers.get(layer.name, {}))
    table.add_section()
    totals = {
        name: getattr(summary, name) for name in ("parameters", "connections", "multiply_adds")
    }
    add("total", "", totals, total)
    console.print(table)
    console.print(
        "For one image, forward; sees: the height and width of what a unit sees of the input."
    )
    console.print(_tpu_use(summary))
    if published:
        console.print(
            "[green]✓[/] as published; [red]✗[/] differs from the published figure behind it."
        )
        console.print(f"Published: {published.source}", highlight=False)
        if published.note:
            console.print(published.note, highlight=False)


def _tpu_use(summary: Summary) -> str:
    """How much of a TPU's work is the network's, and which layers waste more than a quarter."""

    def use(of: Layer | Summary) -> float:
        return of.multiply_adds / of.padded_multiply_adds

    wasteful = [
        f"{layer.name} {use(layer):.2%}"
        for layer in summary.layers
        if layer.padded_multiply_adds and use(layer) < 0.75
    ]
    return (
        f"In a TPU's units of 128x128, {use(summary):.2%} of the mult-adds are the network's, the "
        f"rest padding; {', '.join(wasteful) or 'no layer wastes'}."
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
