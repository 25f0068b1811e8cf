"""Figures about the networks as the papers print them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rounded:
    """A published figure that its source rounds to a multiple of `unit`."""

    figure: int
    unit: int

    def agrees(self, ours: int) -> bool:
        """Return whether our figure is the published one, rounded in the same way."""
        return abs(ours - self.figure) <= self.unit / 2


@dataclasses.dataclass(frozen=True)
class Published:
    """Figures of one network, for the number of classes that its source has.

    Attributes:
      source: publication that prints the figures.
      layers: published figures by layer and column; the columns are "output", "units", "parameters"
        and "connections". A figure that the source does not print is left out.
      total: published figures of the whole network by column.
      note: explanation of a published figure that differs from ours.
    """

    source: str
    layers: Mapping[str, Mapping[str, Any]]
    total: Mapping[str, int | Rounded]
    note: str = ""


def _mlp(thousands: int) -> Published:
    return Published(
        source='LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document '
        'Recognition", 1998, figures 11 and 12, in thousands.',
        layers={},
        total=dict.fromkeys(("parameters", "connections"), Rounded(1000 * thousands, 1000)),
        note="Figure 11 counts connections, biases included, as multiply-adds.",
    )


PUBLISHED = {
    "linear": Published(
        source='LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document '
        'Recognition", 1998, section III.C.',
        layers={},
        total={"parameters": 7_850},
        note="Figures 11 and 12 show 4 thousand, those of 20x20 images: 4,010.",
    ),
    "mlp-1000": _mlp(795),
    "mlp-300-100": _mlp(267),
    "mlp-500-150": _mlp(469),
    "lenet1": Published(
        source="LeCun, Boser, Denker, Henderson, Howard, Hubbard, Jackel, "
        '"Handwritten Digit Recognition with a Back-Propagation Network", 1990.',
        layers={},
        total={"parameters": 2_578, "connections": 98_442},
        note="The paper also counts 4,635 units: these 3,850, 784 pixels and a unit for biases.",
    ),
    "lenet4": Published(
        source='LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document '
        'Recognition", 1998, section III.C.',
        layers={},
        total={
            "parameters": Rounded(17_000, 1_000),
            "connections": Rounded(260_000, 10_000),
        },
        note="The paper contradicts itself: its fully connected layer of 120 units alone has "
        "48,120 parameters. See the docstring of LeNet4.",
    ),
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
