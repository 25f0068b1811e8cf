"""Claims about costs: what pooling, shared weights and padding change in LeNet-5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from jaxcnn.studies import cost_numbers as numbers
from jaxcnn.studies.calculation import Calculation, Cell, Claim, Table
from jaxcnn.studies.cost_1998 import inconsistencies, printed_costs
from jaxcnn.studies.cost_figure import save_figure
from jaxcnn.studies.cost_numbers import SIDE

if TYPE_CHECKING:
    from jaxcnn.summary.summarize import Layer, Summary


def _saved_by_pooling(of: Callable[[Summary], int]) -> Mapping[str, int]:
    without, whole = numbers.without_pooling(), numbers.summary_of("lenet5")
    return {"without pooling": of(without), "with": of(whole)}


def _receptive_field() -> Mapping[str, int]:
    without, whole = numbers.without_pooling(), numbers.summary_of("lenet5")
    sides = [numbers.layer_of(summary, "C5").receptive_field[0] for summary in (whole, without)]
    return dict(zip(("with pooling", "without"), sides, strict=True))


def _saved_by_sharing(name: str) -> Mapping[str, int]:
    shared = numbers.layer_of(numbers.summary_of("lenet5"), name).parameters
    return {"without sharing": numbers.unshared_parameters(name), "with": shared}


def _saved_by_sharing_in_1998() -> Mapping[str, int]:
    summary = numbers.summary_of("lenet5-1998")
    return {"without sharing": summary.connections, "with": summary.parameters}


def _size(padding: str) -> Mapping[str, int]:
    (after,) = numbers.sizes(numbers.first_stages(padding)[:1])
    before = {"pixels before": SIDE}
    return {"pixels after": after, **before} if after > SIDE else {**before, "pixels after": after}


def _impacts(padding: str, *, num_layers: int) -> Mapping[str, int]:
    entered = numbers.outputs_entered(numbers.first_stages(padding)[:num_layers])
    return {"outputs at most": int(entered.max()) ** 2, "at least": int(entered.min()) ** 2}


def _corners() -> Mapping[str, int]:
    same, valid = (
        numbers.outputs_entered(numbers.first_stages(padding)[:1]) for padding in ("SAME", "VALID")
    )
    return {"outputs with SAME": int(same[0]) ** 2, "with VALID": int(valid[0]) ** 2}


POOLING = (
    Claim(
        "pools and multiply-adds",
        "Pooling reduces computation: multiply-adds for one image.",
        partial(_saved_by_pooling, lambda summary: summary.multiply_adds),
    ),
    Claim(
        "pools and activations",
        "Pooling reduces memory: outputs of all layers for one image.",
        partial(_saved_by_pooling, numbers.activations),
    ),
    Claim(
        "pools and parameters",
        "Pooling reduces the parameters of the network.",
        partial(_saved_by_pooling, lambda summary: summary.parameters),
    ),
    Claim(
        "pools and convolutions",
        "Pooling reduces the parameters of the convolutions.",
        partial(_saved_by_pooling, numbers.convolution_parameters),
    ),
    Claim(
        "pools and receptive field",
        "Pooling enlarges the receptive field: pixels along a side of C5's, within the image.",
        _receptive_field,
    ),
)
SHARING = (
    *(
        Claim(
            f"sharing in {name}",
            f"Sharing of kernels reduces the parameters of {name}.",
            partial(_saved_by_sharing, name),
        )
        for name in numbers.CONVOLUTIONS
    ),
    Claim(
        "sharing in LeNet-5 of 1998",
        "Sharing gives LeNet-5 of 1998 fewer parameters than connections.",
        _saved_by_sharing_in_1998,
    ),
)
PADDING = (
    Claim("SAME and size", "SAME keeps the size of C1's maps.", partial(_size, "SAME"), equal=True),
    Claim("VALID and size", "VALID shrinks C1's maps.", partial(_size, "VALID")),
    Claim("FULL and size", "FULL enlarges C1's maps.", partial(_size, "FULL")),
    Claim(
        "SAME and corners",
        "With SAME, a corner enters more outputs of C1 than with VALID.",
        _corners,
    ),
    Claim(
        "FULL and pixels",
        "With FULL, every pixel has the same impact: outputs of C1 that it enters.",
        partial(_impacts, "FULL", num_layers=1),
        equal=True,
    ),
    Claim(
        "FULL and pixels at S4",
        "With FULL, every pixel has the same impact: outputs of S4 that it enters.",
        partial(_impacts, "FULL", num_layers=4),
        equal=True,
    ),
)


def _paddings() -> Table:
    """Return the sizes of the maps, and the outputs that pixels enter, with each padding."""
    rows: list[tuple[Cell, ...]] = []
    for padding in numbers.PADDINGS:
        windows = numbers.first_stages(padding)
        sides = [f"{side}x{side}" for side in numbers.sizes(windows)]
        entered = [numbers.outputs_entered(windows[:count]) for count in (1, 4)]
        impacts = [int(each[i]) ** 2 for each in entered for i in (0, SIDE // 2)]
        rows.append((padding, *sides, *impacts))
    return Table(
        "Padding of C1 and C3",
        (
            *("padding", "C1", "S2", "C3", "S4"),
            *("outputs of C1 that a corner pixel enters", "a central pixel"),
            *("outputs of S4 that a corner pixel enters", "a central pixel"),
        ),
        tuple(rows),
        "For one map of each layer: 28x28 pixels, windows of 5x5 in C1 and C3, pools of 2x2.",
    )


def _layers() -> Table:
    """Return LeNet-5 with and without pools, layer by layer."""
    whole = numbers.summary_of("lenet5").layers
    without = {layer.name: layer for layer in numbers.without_pooling().layers}
    rows: list[tuple[Cell, ...]] = []
    for layer in whole:
        others = _cells(without[layer.name]) if layer.name in without else ["none"] * 4
        pairs = zip(_cells(layer), others, strict=True)
        rows.append((layer.name, *(f"{mine} / {other}" for mine, other in pairs)))
    return Table(
        "LeNet-5 with / without pooling",
        ("layer", "output", "parameters", "multiply-adds", "receptive field"),
        tuple(rows),
        "The receptive field of a unit is cut at the borders of the image; with the frame of C1's "
        "padding C5 sees 32x32 pixels. Without pools, F6 has 48,000 inputs instead of 120, and "
        "nearly all parameters.",
    )


def _cells(layer: Layer) -> list[str]:
    """Return output, parameters, multiply-adds and receptive field of a layer."""
    height, width = layer.receptive_field
    shape = "x".join(map(str, layer.output_shape))
    return [shape, f"{layer.parameters:,}", f"{layer.multiply_adds:,}", f"{height}x{width}"]


COST = Calculation(
    name="cost",
    claim="Pooling and sharing of kernels save parameters, operations and memory; padding keeps "
    "the borders.",
    source="the course notebook, of LeNet-5; LeCun et al. 1998, section II, of sharing",
    arms=(*POOLING, *SHARING, *PADDING),
    tables=lambda: (_layers(), _paddings(), printed_costs(), inconsistencies()),
    save_figure=save_figure,
    caption="Top: LeNet-5 without and with pooling, and without and with sharing of kernels. "
    "Middle: figures 11 and 12 of LeCun et al. 1998 beside our counts. Bottom: the number of "
    "outputs of C1 that each pixel enters.",
    comment="Without pooling, LeNet-5 is the same network with pools that return their input. "
    "Without sharing, each output of a convolution has a kernel and a bias of its own. Pooling "
    "saves parameters in the first full layer alone. C5 shares nothing, because its maps have one "
    "position.",
)
