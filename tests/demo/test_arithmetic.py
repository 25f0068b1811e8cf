"""The page's arithmetic and preparation of digits, compared with JAX's and Python's."""

import base64
from functools import partial

import numpy as np
import pytest
from flax import linen as nn
from helpers import assert_close, drawn_page, random_params

from jaxcnn.demo.describe import describe
from jaxcnn.demo.page import network_outputs
from jaxcnn.evaluation.digits import prepare_digit
from jaxcnn.interop.pretrained import load_pretrained
from jaxcnn.layers.pooling import lp_pool, max_pool, min_pool
from jaxcnn.models import MODELS
from jaxcnn.models.lenet import LeNet5
from jaxcnn.models.variants import CHOICES, constructor

OUTPUTS = """
([description, images, pool]) => {
  const network = new lenet5.Network(description, lenet5.decodeFloats(description.numbers));
  const pixels = lenet5.decodeBytes(images);
  const starts = Array.from({ length: pixels.length / 784 }, (_, i) => 784 * i);
  return starts.map((i) => [...network.run(pixels.subarray(i, i + 784), pool).logits]);
}
"""
FAMILY = [name for name in MODELS if name.startswith("lenet5")]
FAMILY += [f"lenet5-tanh:pool={pool}" for pool in CHOICES["pool"]]
CUSTOM = {
    "leaky relu, max": LeNet5(activation=partial(nn.leaky_relu, negative_slope=0.2), pool=max_pool),
    "hard swish, 47 classes": LeNet5(activation=nn.hard_swish, num_classes=47),
    "gelu, 3-norm": LeNet5(activation=nn.gelu, pool=partial(lp_pool, p=3)),
}


@pytest.fixture(scope="module")
def page(browser, page_files):
    """A page, in which the networks of other pages are computed, too."""
    page = browser.new_page()
    page.goto(page_files("lenet5-mnist").as_uri())
    yield page
    page.close()


def base64_of(array):
    return base64.b64encode(array.tobytes()).decode()


def outputs(page, trained, images, pool=None):
    return np.array(page.evaluate(OUTPUTS, [describe(trained), base64_of(images), pool]))


@pytest.mark.parametrize("name", ["lenet5-mnist", "lenet5-1998-mnist"])
def test_outputs_of_100_digits_equal_those_of_jax(name, page, digits):
    trained = load_pretrained(name)
    expected = network_outputs(trained, digits.images)
    actual = outputs(page, trained, digits.images)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILY, *CUSTOM])
def test_outputs_of_every_network_equal_those_of_jax(name, page, digits):
    is_1998 = name.startswith("lenet5-1998")
    trained = load_pretrained("lenet5-1998-mnist" if is_1998 else "lenet5-mnist")
    model = CUSTOM.get(name) or constructor(name)(num_classes=10)
    trained = trained._replace(model=model, params=random_params(model, (28, 28, 1)))
    expected = network_outputs(trained, digits.images[:10])
    assert_close(outputs(page, trained, digits.images[:10]), expected, tolerance=1e-5)


def test_pooling_switched_on_the_same_weights_equals_jax(page, digits):
    trained = load_pretrained("lenet5-mnist")
    for pool, function in (("max", max_pool), ("min", min_pool)):
        switched = trained._replace(model=LeNet5(pool=function))
        actual = outputs(page, trained, digits.images[:20], pool)
        expected = network_outputs(switched, digits.images[:20])
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("pool", "rows", "columns"),
    [
        ("average", [12, 27], [4, 19]),
        ("overlapping", [12, 30], [4, 22]),
        ("blur", [9, 30], [1, 22]),
    ],
)
def test_receptive_fields_are_what_a_unit_depends_on(pool, rows, columns, page):
    """Changes of the input outside of the field leave the unit, those inside change it."""
    found = page.evaluate(
        """
      (pool) => {
        const { network, state } = lenet5;
        const unit = { map: 5, row: 3, column: 1 };
        const field = network.receptiveFields(4, unit, pool).at(-1);
        const size = network.layers[0].size;
        const value = (pixels) => network.run(pixels, pool).outputs[4].after[5 * 25 + 3 * 5 + 1];
        const noise = Array.from({ length: 784 }, (_, i) => (i * 97) % 256);
        const inside = (i) => {
          const [row, column] = [Math.floor(i / 28) + 2, (i % 28) + 2];
          const within = (x, [low, high]) => x >= low && x <= high;
          return within(row, field.rows) && within(column, field.columns);
        };
        const outer = noise.map((grey, i) => (inside(i) ? grey : 255 - grey));
        const inner = noise.map((grey, i) => (inside(i) ? 255 - grey : grey));
        return { field, values: [noise, outer, inner].map(value) };
      }
    """,
        pool,
    )
    whole, outer, inner = found["values"]
    assert found["field"]["rows"] == rows and found["field"]["columns"] == columns
    assert whole == outer and whole != inner


@pytest.mark.parametrize(
    "size", [150, *(pytest.param(size, marks=pytest.mark.slow) for size in (40, 400))]
)
def test_preparation_equals_that_of_python(size, page):
    rng = np.random.default_rng(size)
    strokes = np.zeros((28, 28), np.uint8)
    strokes[5:22, 12:15] = 255
    strokes[5:8, 8:20] = 180
    strokes[23:26, 3:6] = 255  # a second blob, which is kept
    photo = drawn_page(strokes, rng, size=size, noise=2.0)
    photo[30:33, 700:703] = 0  # a speck, which is not
    for image in (photo, 255 - photo, photo[:, 100:400], np.full((30, 40), 200, np.uint8)):
        prepared = page.evaluate(
            """([data, width, height]) =>
                [...lenet5.prepareDigit({ data: lenet5.decodeBytes(data), width, height })]""",
            [base64_of(image), image.shape[1], image.shape[0]],
        )
        difference = np.array(prepared) - prepare_digit(image).ravel().astype(int)
        assert np.abs(difference).max() <= 2
