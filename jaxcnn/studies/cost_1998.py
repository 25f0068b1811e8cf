"""Costs as the papers print them beside ours, and where the papers contradict themselves.

The printed figures are those of LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to
Document Recognition", 1998, figures 11 and 12, read as numbers on the bars, in thousands.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from jaxcnn.studies.calculation import Cell, Table
from jaxcnn.studies.cost_numbers import layer_of, summary_of

if TYPE_CHECKING:
    from jaxcnn.summary.summarize import Layer


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


def dense(*sizes: int) -> Counts:
    """Return the counts of a stack of fully connected layers, given the number of units of each."""
    products = sum(a * b for a, b in itertools.pairwise(sizes))
    return Counts(products, products + sum(sizes[1:]), products + sum(sizes[1:]))


def network(model: str) -> Counts:
    """Return the counts of an entry of MODELS."""
    summary = summary_of(model)
    return Counts(summary.multiply_adds, summary.connections, summary.parameters)


def _stored(number: int) -> Counts:
    return Counts(number, number, number)


def _perceptron(method: str, printed: int, *sizes: int) -> Bar:
    return Bar(method, printed, printed, "full layers", lambda: dense(*sizes))


BARS = (
    Bar("[deslant] Linear", 4, 4, "400 x 10, biases", lambda: dense(400, 10)),
    Bar("Pairwise", 36, 35, "784 x 45, biases", lambda: dense(784, 45)),
    Bar("[deslant] K-NN Euclidean", 24_000, 24_000, "60,000 x 400", lambda: _stored(60_000 * 400)),
    Bar(
        "40 PCA + quadratic",
        39,
        40,
        "784 x 40 + 821 x 10",
        lambda: _stored(784 * 40 + 821 * 10),
    ),
    Bar(
        "1000 RBF + linear",
        794,
        794,
        "784 x 1,000 + 1,000 x 10",
        lambda: _stored(784 * 1000 + 1000 * 10),
    ),
    Bar("[16x16] Tangent distance", 20_000, 25_000),
    Bar("SVM poly 4", 14_000, 14_000),
    Bar("RS-SVM poly 5", 650, 650),
    Bar("[dist] V-SVM", 28_000, 28_000),
    _perceptron("[deslant] 20x20-300-10", 123, 400, 300, 10),
    _perceptron("28x28-1000-10", 795, 784, 1000, 10),
    _perceptron("28x28-300-100-10", 267, 784, 300, 100, 10),
    _perceptron("28x28-500-150-10", 469, 784, 500, 150, 10),
    Bar("[16x16] LeNet-1", 100, 3),
    Bar("LeNet-4", 260, 17),
    Bar("LeNet-4 / Local", 20_000, 24_000),
    Bar("LeNet-4 / K-NN", 10_000, 24_000),
    Bar("LeNet-5", 401, 60, "`lenet5-1998`", lambda: network("lenet5-1998")),
    Bar("[dist] Boosted LeNet-4", 460, 51),
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
        "Only the bar of LeNet-5's operations is far from ours.",
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


def described_lenet4() -> Counts:
    """Return the counts of LeNet-4 as the text describes it: a full layer of 120 units after S4."""
    layers = {layer.name: layer for layer in summary_of("lenet5-1998").layers}
    # Four maps instead of C1's six, eight instead of S2's; C3, S4 and C5 are those of LeNet-5.
    shares = {"C1": (4, 6), "S2": (8, 6), "C3": (1, 1), "S4": (1, 1), "C5": (1, 1)}

    def total(of: Callable[[Layer], int], output: int) -> int:
        return output + sum(of(layers[name]) * a // b for name, (a, b) in shares.items())

    output = dense(120, 10)
    return Counts(
        total(lambda layer: layer.multiply_adds, output.multiply_adds),
        total(lambda layer: layer.connections, output.connections),
        total(lambda layer: layer.parameters, output.parameters),
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
    lenet5, lenet4 = network("lenet5-1998"), described_lenet4()
    table_i, full = (layer_of(summary_of(name), "C3") for name in ("lenet5-1998", "lenet5"))
    fully_connected = lenet5.connections - table_i.connections + full.connections
    large, small = dense(784, 1000, 150, 10), dense(784, 500, 150, 10)
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
            "about 17,000 parameters and 260,000 connections (text)",
            "4, 8, 16, 16 maps, then 120 fully connected units (text)",
            f"{lenet4.parameters:,} and {lenet4.connections:,} as described",
            "the totals need units of the 120 that see 4 or 5 of the 16 maps each",
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
    pairwise, linear, deslanted = dense(784, 45), dense(784, 10), dense(400, 10)
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
