"""A validation split: which images it takes, and what is left."""

import dataclasses

import numpy as np
import pytest
from helpers import open_folder

from jaxcnn.data.datasets import Dataset
from jaxcnn.data.validation_split import validation_rows, with_validation
from jaxcnn.errors import UserError

LABELS = np.repeat(np.arange(4, dtype=np.int32), [1, 19, 30, 50])


def test_validation_rows_are_in_proportion_and_leave_one_of_each_class():
    rows = validation_rows(LABELS, 0.2, seed=0)
    assert len(rows) == 20 and (np.diff(rows) > 0).all()
    sizes = np.bincount(LABELS[rows], minlength=4)
    np.testing.assert_allclose(sizes, [0, 4, 6, 10], atol=1)
    assert validation_rows(LABELS, 0.2, seed=0).tolist() == rows.tolist()
    assert validation_rows(LABELS, 0.2, seed=1).tolist() != rows.tolist()
    most = validation_rows(LABELS, 0.96, seed=0)
    assert np.bincount(LABELS)[1:].tolist() == (np.bincount(LABELS[most])[1:] + 1).tolist()


@pytest.mark.parametrize(("fraction", "count"), [(0.004, 0), (0.99, 99)])
def test_validation_rows_refuse_a_fraction_of_nothing_or_of_all(fraction, count):
    with pytest.raises(UserError, match=f"^`val_fraction` is {fraction}, which is {count} of the"):
        validation_rows(LABELS, fraction, seed=0)


def test_with_validation_moves_images_of_a_dataset_in_memory():
    images = np.arange(100, dtype=np.uint8)[:, None, None, None]
    whole = Dataset("numbers", images, LABELS, images[:3], LABELS[:3], tuple("abcd"))
    split = with_validation(whole, 0.25, seed=7)
    assert split.val_images.shape == (25, 1, 1, 1) and split.train_images.shape == (75, 1, 1, 1)
    for part in ("train", "val"):
        rows = getattr(split, f"{part}_images").ravel()
        np.testing.assert_array_equal(getattr(split, f"{part}_labels"), LABELS[rows])
    both = np.concatenate([split.train_images, split.val_images]).ravel()
    assert sorted(both) == [*range(100)]
    assert split.test_images is whole.test_images


def test_with_validation_moves_images_of_a_stream(image_folder):
    whole = open_folder(image_folder)
    split = with_validation(whole, 0.1, seed=3)
    assert split.train_images.shape == (54, 28, 28, 3) and len(split.val_images) == 6
    paths = [*split.train_images.paths, *split.val_images.paths]
    assert sorted(paths) == [*whole.train_images.paths]
    row = whole.train_images.paths.index(split.val_images.paths[2])
    example, expected = split.val_images.evaluation_example(2), whole.train_images[row]
    np.testing.assert_array_equal(example["image"], expected)
    assert example["label"] == whole.train_labels[row]
    records = dataclasses.replace(whole, train_labels=None)
    assert len(with_validation(records, 0.1, seed=3).val_images) == 6
