import functools
import math

import pytest

from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.summary.published import PUBLISHED, Rounded
from jaxcnn.summary.summarize import summarize


@functools.cache
def summary_of(name):
    return summarize(MODELS[name](), IMAGE_SHAPES[name])


# The caption of AlexNet's figure 2 counts 253,440 units in conv1; its maps have 290,400.
# The paper describes a LeNet-4 of about 51,000 parameters and prints 17,000.
DIFFERING = [
    ("alexnet-2012", "conv1", "units", 290_400, 253_440),
    ("lenet4", "total", "parameters", 50_698, Rounded(17_000, 1_000)),
]


def our_figures(summary):
    """Return our figures by layer and column, under the names of `Published`."""
    figures = {"input": {"output": summary.input_shape, "units": math.prod(summary.input_shape)}}
    figures["total"] = {"parameters": summary.parameters, "connections": summary.connections}
    for layer in summary.layers:
        figures[layer.name] = {
            "output": layer.output_shape,
            "units": layer.units,
            "parameters": layer.parameters,
            "connections": layer.connections,
        }
    return figures


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_agree_with_ours_but_two(name):
    published, summary = PUBLISHED[name], summary_of(name)
    ours = our_figures(summary)

    def agrees(figure, published):
        return published.agrees(figure) if isinstance(published, Rounded) else figure == published

    differing = [
        (name, layer, column, ours[layer][column], figure)
        for layer, figures in {**published.layers, "total": published.total}.items()
        for column, figure in figures.items()
        if not agrees(ours[layer][column], figure)
    ]
    assert differing == [each for each in DIFFERING if each[0] == name]


def test_rounded_figures_agree_within_half_a_unit():
    rounded = Rounded(267_000, 1000)
    assert rounded.agrees(266_500) and rounded.agrees(267_500)
    assert not rounded.agrees(266_499) and not rounded.agrees(267_501)


def test_published_figures_are_of_networks_with_a_source():
    assert PUBLISHED.keys() <= MODELS.keys()
    assert all(published.source for published in PUBLISHED.values())
