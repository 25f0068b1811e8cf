import dataclasses
import functools
import io
import re

import pytest
from rich.console import Console

from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.summary.published import PUBLISHED, Rounded
from jaxcnn.summary.summarize import summarize
from jaxcnn.summary.table import print_summary


@functools.cache
def summary_of(name):
    return summarize(MODELS[name](), IMAGE_SHAPES[name])


def printed(summary, published, *, width=100, tpu=False):
    console = Console(file=io.StringIO(), width=width)
    print_summary("a network", summary, published, console, tpu=tpu)
    return console.file.getvalue()


def row(text, name):
    return next(line for line in text.splitlines() if line.split()[:1] == [name])


@pytest.mark.parametrize("name", MODELS)
def test_print_summary_cuts_nothing_off(name):
    assert "…" not in printed(summary_of(name), PUBLISHED.get(name))  # rich's ellipsis


@pytest.mark.parametrize("width", [60, 40])
@pytest.mark.parametrize("name", PUBLISHED)
def test_print_summary_distributes_columns_over_tables_on_a_narrow_console(name, width):
    summary, published = summary_of(name), PUBLISHED[name]
    wide, narrow = printed(summary, published), printed(summary, published, width=width)
    assert "…" not in narrow and max(map(len, narrow.splitlines())) <= width
    tables = lambda text: text.split("For one image")[0]  # noqa: E731
    fits = max(map(len, tables(wide).splitlines())) <= width
    assert fits or narrow.count("layer ") > wide.count("layer ")
    cells = lambda text: sorted(re.findall(r"[\d,x]{2,}", tables(text)))  # noqa: E731
    assert cells(narrow) == cells(wide)


@pytest.mark.parametrize("name", PUBLISHED)
def test_print_summary_marks_every_published_figure(name):
    published = PUBLISHED[name]
    text = printed(summary_of(name), published).split("✓ equals")[0]
    num_figures = sum(map(len, published.layers.values())) + len(published.total)
    assert sum(map(text.count, "✓✗≈")) == num_figures


def test_print_summary_marks_agreement():
    text = printed(summary_of("lenet5-1998"), PUBLISHED["lenet5-1998"])
    assert "156 ✓" in row(text, "C1") and "122,304 ✓" in row(text, "C1")
    assert "60,000 ✓" in row(text, "total") and "340,908 ✓" in row(text, "total")
    assert "✗" not in text.split("✓ equals")[0]
    assert "LeCun" in text


def test_print_summary_marks_disagreement_with_both_figures():
    published = PUBLISHED["lenet5-1998"]
    layers = {**published.layers, "C3": {**published.layers["C3"], "parameters": 2_416}}
    text = printed(summary_of("lenet5-1998"), dataclasses.replace(published, layers=layers))
    assert "1,516 ✗ 2,416" in row(text, "C3") and "151,600 ✓" in row(text, "C3")
    assert "290,400 ✗ 253,440" in row(
        printed(summary_of("alexnet-2012"), PUBLISHED["alexnet-2012"]), "conv1"
    )


def test_print_summary_marks_figures_that_are_rounded_in_the_source():
    published = PUBLISHED["mlp-300-100"]
    text = printed(summary_of("mlp-300-100"), published)
    assert row(text, "total").count("266,610 ≈ 267,000") == 2 and "≈ equals" in text
    wrong = dataclasses.replace(published, total={"parameters": Rounded(268_000, 1000)})
    text = printed(summary_of("mlp-300-100"), wrong)
    assert "266,610 ✗ 268,000" in row(text, "total")
    assert "≈ equals" not in printed(summary_of("lenet5-1998"), PUBLISHED["lenet5-1998"])


def test_print_summary_without_published_figures_has_no_marks():
    text = printed(summary_of("lenet5"), None)
    assert "✓" not in text and "✗" not in text and "connections" not in text


def test_print_summary_names_the_layers_that_waste_a_tpu():
    text = " ".join(printed(summary_of("alexnet"), None, tpu=True).split())
    assert "10.13% of the mult-adds" in text and "conv1 1.17%, conv2 37.50%." in text
    assert "TPU" not in printed(summary_of("alexnet"), None)
