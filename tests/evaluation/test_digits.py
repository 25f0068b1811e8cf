"""Photos of digits, brought into MNIST's form."""

import numpy as np
import pytest
from helpers import drawn_page
from PIL import Image
from scipy import ndimage

from jaxcnn.data import datasets
from jaxcnn.evaluation.digits import prepare_digit


@pytest.fixture(scope="module")
def digits():
    """Twenty digits of MNIST."""
    return datasets.load("mnist5k").test_images[:20, ..., 0]


def test_prepare_digit_keeps_images_of_mnist(digits):
    prepared = np.stack([prepare_digit(digit)[..., 0] for digit in digits]).astype(int)
    assert np.abs(prepared - digits).mean() < 4  # of 255; a shift by a pixel is 20


@pytest.mark.parametrize("size", [40, 150, 400])
def test_prepare_digit_finds_a_digit_on_a_page(size, digits):
    rng = np.random.default_rng(size)
    for digit in digits[:4]:
        page = drawn_page(digit, rng, size=size, noise=2.0)
        for image in (page, 255 - page):  # chalk on a blackboard, too
            prepared = prepare_digit(image)[..., 0]
            assert prepared.max() == 255 and (prepared[0] == 0).all()
            box = [np.ptp(np.flatnonzero(prepared.any(axis))) + 1 for axis in (0, 1)]
            assert max(box) == 20
            assert np.abs(np.array(ndimage.center_of_mass(prepared)) - 14).max() <= 0.5
            assert np.abs(prepared.astype(int) - digit).mean() < 16


def test_prepare_digit_ignores_specks_and_the_edge_of_the_page(digits):
    page = drawn_page(digits[3], np.random.default_rng(0), size=150)
    expected = prepare_digit(page)
    page[10:14, 300:303] = 0
    page[:, :12] = 20  # the table below the page
    np.testing.assert_allclose(prepare_digit(page).astype(int), expected, atol=50)


def test_prepare_digit_finds_a_digit_that_fills_its_page(digits):
    for digit in digits[[0, 3, 5, 6, 9]]:
        rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
        cropped = Image.fromarray(digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        large = cropped.resize([8 * side for side in cropped.size], Image.Resampling.BICUBIC)
        prepared = prepare_digit(255 - np.asarray(large))[..., 0]
        assert np.corrcoef(prepared.ravel(), digit.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (3, 200)])
def test_prepare_digit_of_an_empty_page_is_black(shape):
    assert prepare_digit(np.full(shape, 200, np.uint8)).tolist() == np.zeros((28, 28, 1)).tolist()


def test_prepare_digit_of_a_line_keeps_its_proportions():
    page = np.full((300, 300), 250, np.uint8)
    page[50:250, 150:160] = 30
    prepared = prepare_digit(page)[..., 0]
    rows, columns = (np.flatnonzero(prepared.any(axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) == (20, 1)
