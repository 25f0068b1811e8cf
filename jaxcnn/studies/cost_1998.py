"""Costs as the papers print them beside ours, and where the papers contradict themselves.

The printed figures are those of LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to
Document Recognition", 1998, figures 11 and 12, read as numbers on the bars, in thousands.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from jaxcnn.studies.calculation import Cell, Table
from jaxcnn.studies.cost_numbers import SIDE, layer_of, summary_of

if TYPE_CHECKING:
    from jaxcnn.summary.summarize import Summary


class Counts(NamedTuple):
    """Numbers of one image, forward; connections count each bias as an input."""

    multiply_adds: int
    connections: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class Bar:
    """A method of figures 11 and 12.

    Attributes:
      method: its name.
      figure11: printed multiply-accumulate operations, in thousands.
      figure12: printed variables, in thousands.
      how: source of our counts; empty if we have none.
      counts: function that returns our counts.
    """

    method: str
    figure11: int
    figure12: int
    how: str = ""
    counts: Callable[[], Counts] | None = None


def network(model: str) -> Counts:
    """Return the counts of an entry of MODELS."""
    return _counts(summary_of(model))


@functools.cache
def perceptron(*hidden: int, side: int = SIDE, outputs: int = 10) -> Counts:
    """Return the counts of a multilayer perceptron, given the widths of its hidden layers."""
    from jaxcnn.models.mlp import MLP
    from jaxcnn.summary.summarize import summarize

    return _counts(summarize(MLP(outputs, hidden), (side, side, 1)))


def _counts(summary: Summary) -> Counts:
    return Counts(summary.multiply_adds, summary.connections, summary.parameters)


def _products(number: int) -> Counts:
    return Counts(number, number, number)


def _boosted() -> Counts:
    """Return the counts of three LeNet-4, of which 1.75 are called on average, as in 1998."""
    one = network("lenet4")
    return Counts(one.multiply_adds * 7 // 4, one.connections * 7 // 4, 3 * one.parameters)


def _model(method: str, figure11: int, figure12: int, model: str) -> Bar:
    return Bar(method, figure11, figure12, f"`{model}`", functools.partial(network, model))


BARS = (
    Bar("[deslant] Linear", 4, 4, "`linear`, 20x20 pixels", lambda: perceptron(side=20)),
    Bar("Pairwise", 36, 35, "`linear`, 45 outputs", lambda: perceptron(outputs=45)),
    Bar("[deslant] K-NN", 24_000, 24_000, "60,000 x 400", lambda: _products(60_000 * 400)),
    Bar(
        "40 PCA + quadratic", 39, 40, "784 x 40 + 821 x 10", lambda: _products(784 * 40 + 821 * 10)
    ),
    Bar(
        "1000 RBF", 794, 794, "784 x 1,000 + 1,000 x 10", lambda: _products(784 * 1000 + 1000 * 10)
    ),
    Bar("[16x16] Tangent distance", 20_000, 25_000),
    Bar("SVM poly 4", 14_000, 14_000),
    Bar("RS-SVM poly 5", 650, 650),
    Bar("[dist] V-SVM", 28_000, 28_000),
    Bar("[deslant] 20x20-300-10", 123, 123, "`mlp-300`, 20x20", lambda: perceptron(300, side=20)),
    _model("28x28-1000-10", 795, 795, "mlp-1000"),
    _model("28x28-300-100-10", 267, 267, "mlp-300-100"),
    _model("28x28-500-150-10", 469, 469, "mlp-500-150"),
    _model("[16x16] LeNet-1", 100, 3, "lenet1"),
    _model("LeNet-4", 260, 17, "lenet4"),
    Bar("LeNet-4 / Local", 20_000, 24_000),
    Bar("LeNet-4 / K-NN", 10_000, 24_000),
    _model("LeNet-5", 401, 60, "lenet5-1998"),
    Bar("[dist] Boosted LeNet-4", 460, 51, "1.75 and 3 x `lenet4`", _boosted),
)


def printed_costs() -> Table:
    """Return figures 11 and 12 beside our counts."""
    return Table(
        "Figures 11 and 12 of 1998",
        (
            "method",
            "operations (figure 11)",
            "our connections",
            "our multiply-adds",
            "variables (figure 12)",
            "our parameters",
            "computed from",
        ),
        tuple(_row(bar) for bar in BARS),
        "A connection is a multiply-add or the addition of a bias. The bars of the perceptrons are "
        "connections: 28x28-1000-10 has 794,000 multiply-adds, and figure 11 prints 795 thousand. "
        "LeNet-5's operations, and the variables of LeNet-4 alone and boosted, are far from ours: "
        "see below.",
    )


def _row(bar: Bar) -> tuple[Cell, ...]:
    operations, variables = 1000 * bar.figure11, 1000 * bar.figure12
    if bar.counts is None:
        return (bar.method, operations, None, None, variables, None, None)
    ours = bar.counts()
    return (
        bar.method,
        operations,
        ours.connections,
        ours.multiply_adds,
        variables,
        ours.parameters,
        bar.how,
    )


def inconsistencies() -> Table:
    """Return the places where a paper contradicts itself, each with the computed number."""
    return Table(
        "The papers' own inconsistencies",
        ("subject", "one place", "another place", "computed", "remark"),
        (
            *_networks_of_1998(),
            *_other_classifiers(),
            ("passes of training", "20 (III.B)", "21 points (figure 5)", None, None),
            *_alexnet(),
        ),
        "The sections and figures are those of LeCun et al. 1998, and of Krizhevsky et al. 2012 "
        "for AlexNet.",
    )


def _networks_of_1998() -> tuple[tuple[Cell, ...], ...]:
    lenet5, lenet4 = network("lenet5-1998"), network("lenet4")
    table_i, all_maps = (layer_of(summary_of(name), "C3") for name in ("lenet5-1998", "lenet5"))
    fully_connected = lenet5.connections - table_i.connections + all_maps.connections
    full = layer_of(summary_of("lenet4"), "C5")
    large, small = perceptron(1000, 150), perceptron(500, 150)
    return (
        (
            "LeNet-5, operations",
            "340,908 connections (II.B)",
            "401 thousand (figure 11)",
            f"{lenet5.connections:,} connections",
            f"perhaps connections plus parameters: {lenet5.connections + lenet5.parameters:,}; "
            f"with a fully connected C3 there are {fully_connected:,} connections",
        ),
        (
            "LeNet-4, size",
            "about 17,000 parameters, 260,000 connections (text)",
            "a fully connected layer of 120 units above 16 maps (text)",
            f"{lenet4.parameters:,} and {lenet4.connections:,}",
            f"that layer alone has {full.parameters:,} parameters; with 17,000, each of its units "
            "sees 4 or 5 of the 16 maps",
        ),
        (
            "perceptron with an error of 2.95 %",
            "500 and 150 hidden units (figures 9, 11, 12)",
            "1000 and 150 (text)",
            f"{small.parameters:,} and {large.parameters:,} parameters",
            "figure 12 prints 469 thousand: 500 and 150",
        ),
    )


def _other_classifiers() -> tuple[tuple[Cell, ...], ...]:
    pairwise, linear, deslanted = perceptron(outputs=45), perceptron(), perceptron(side=20)
    return (
        (
            "pairwise linear classifier",
            "36 thousand operations (figure 11)",
            "35 thousand variables (figure 12)",
            f"{pairwise.connections:,} connections and parameters",
            "figure 12 is right",
        ),
        (
            "linear classifier",
            "an error of 12.0 %, of 28x28 pixels (figure 9)",
            "4 thousand variables (figure 12)",
            f"{linear.parameters:,} parameters",
            f"figures 11 and 12 show the deslanted one, of 20x20 pixels: {deslanted.parameters:,}",
        ),
        ("reduced-set SVM", "an error of 1.0 % (figure 9)", "1.1 % (text)", None, None),
        ("V-SVM", "degree 9 (figures 9, 11)", "degree 5 (figure 12)", None, None),
    )


def _alexnet() -> tuple[tuple[Cell, ...], ...]:
    from jaxcnn.layers.padding import output_size

    conv1 = layer_of(summary_of("alexnet-2012"), "conv1")
    side, _ = output_size((224, 224), (11, 11), strides=4)
    return (
        (
            "AlexNet, units of conv1",
            "253,440 (caption of figure 2)",
            "55x55 maps, 48 for each GPU (figure 2)",
            f"{conv1.units:,} units",
            "the authors' reprint of 2017 corrects the caption to 290,400",
        ),
        (
            "AlexNet, size of conv1",
            "224x224 pixels, windows of 11x11, stride 4 (3.5)",
            "55x55 maps (figure 2)",
            f"{side}x{side} maps without padding",
            "55x55 need 227 pixels",
        ),
    )
