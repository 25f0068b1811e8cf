"""The parts of a training set: which images they have."""

import dataclasses
import itertools

import numpy as np
import pytest
from helpers import open_folder

from jaxcnn.data.datasets import Dataset
from jaxcnn.data.splits import noisy_labels, split_training_set, subset_rows, validation_rows
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


def test_subset_rows_are_nested_in_proportion_and_begin_with_one_of_each_class():
    subsets = [subset_rows(LABELS, count, seed=0) for count in range(1, 101)]
    for smaller, larger in itertools.pairwise(subsets):
        assert (np.diff(larger) > 0).all() and {*smaller} < {*larger}
    assert len(subsets[0]) == 1 and {*LABELS[subsets[3]]} == {0, 1, 2, 3}
    for count in (4, 37, 80):
        sizes = np.bincount(LABELS[subsets[count - 1]])
        np.testing.assert_allclose(sizes, np.array([1, 19, 30, 50]) * count / 100, atol=1)
    assert subsets[-1].tolist() == [*range(100)]
    assert subset_rows(LABELS, 37, seed=0).tolist() == subsets[36].tolist()
    assert subset_rows(LABELS, 37, seed=1).tolist() != subsets[36].tolist()


def test_noisy_labels_replace_a_share_of_the_labels_uniformly_and_nested():
    labels = np.repeat(np.arange(10, dtype=np.int32), 1000)
    half, all_of_them = (noisy_labels(labels, p, 10, seed=1) for p in (0.5, 1.0))
    assert half.dtype == np.int32
    changed = half != labels
    assert np.mean(changed) == pytest.approx(0.5 * 0.9, abs=0.02)
    np.testing.assert_array_equal(half[changed], all_of_them[changed])
    np.testing.assert_allclose(np.bincount(all_of_them), 1000, atol=120)
    assert np.mean(all_of_them == labels) == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(noisy_labels(labels, 0.0, 10, seed=1), labels)
    assert (noisy_labels(labels, 0.5, 10, seed=2) != half).any()


def split(whole, val_fraction=0.0, train_examples=None, seed=3):
    return split_training_set(
        whole, val_fraction=val_fraction, train_examples=train_examples, seed=seed
    )


@pytest.mark.parametrize(("val_fraction", "most"), [(0.0, 100), (0.25, 75)])
def test_split_training_set_refuses_more_images_than_there_are(whole, val_fraction, most):
    assert len(split(whole, val_fraction, most).train_images) == most
    with pytest.raises(UserError, match=f"^`train_examples` is 101; expected at most {most}, the"):
        split(whole, val_fraction, 101)


@pytest.fixture
def whole():
    images = np.arange(100, dtype=np.uint8)[:, None, None, None]
    return Dataset("numbers", images, LABELS, images[:3], LABELS[:3], tuple("abcd"))


def test_split_training_set_draws_the_subset_from_what_is_not_for_validation(whole):
    both, validation = split(whole, 0.25, 30), split(whole, 0.25)
    np.testing.assert_array_equal(both.val_images, validation.val_images)
    rows = both.train_images.ravel()
    assert len(rows) == 30 and {*rows} < {*validation.train_images.ravel()}
    np.testing.assert_array_equal(both.train_labels, LABELS[rows])
    assert split(whole) is whole


def test_split_training_set_draws_labels_of_training_images_only(whole):
    options = dict(val_fraction=0.25, train_examples=60, seed=3)
    clean, noisy = (split_training_set(whole, **options, label_noise=p) for p in (0.0, 1.0))
    for field in ("train_images", "val_images", "val_labels", "test_labels"):
        np.testing.assert_array_equal(getattr(noisy, field), getattr(clean, field))
    expected = noisy_labels(clean.train_labels, 1.0, 4, seed=3)
    np.testing.assert_array_equal(noisy.train_labels, expected)
    np.testing.assert_array_equal(whole.train_labels, LABELS)
    alone = split_training_set(
        whole, val_fraction=0.0, train_examples=None, label_noise=1.0, seed=3
    )
    assert alone.train_images is whole.train_images and (alone.train_labels != LABELS).any()


def test_split_training_set_moves_images_of_a_dataset_in_memory(whole):
    split = split_training_set(whole, val_fraction=0.25, train_examples=None, seed=7)
    assert split.val_images.shape == (25, 1, 1, 1) and split.train_images.shape == (75, 1, 1, 1)
    for part in ("train", "val"):
        rows = getattr(split, f"{part}_images").ravel()
        np.testing.assert_array_equal(getattr(split, f"{part}_labels"), LABELS[rows])
    both = np.concatenate([split.train_images, split.val_images]).ravel()
    assert sorted(both) == [*range(100)]
    assert split.test_images is whole.test_images


def test_split_training_set_moves_images_of_a_stream(image_folder):
    whole = open_folder(image_folder)
    few = split(whole, 0.1, 12)
    assert few.train_images.shape == (12, 28, 28, 3) and len(few.val_images) == 6
    assert np.bincount(few.train_labels).tolist() == [4, 4, 4]
    assert [few.train_images.training_example(row)["label"] for row in range(12)] == [
        *few.train_labels
    ]
    parts = split(whole, 0.1)
    assert parts.train_images.shape == (54, 28, 28, 3) and len(parts.val_images) == 6
    paths = [*parts.train_images.paths, *parts.val_images.paths]
    assert sorted(paths) == [*whole.train_images.paths]
    row = whole.train_images.paths.index(parts.val_images.paths[2])
    example, expected = parts.val_images.evaluation_example(2), whole.train_images[row]
    np.testing.assert_array_equal(example["image"], expected)
    assert example["label"] == whole.train_labels[row]
    records = dataclasses.replace(whole, train_labels=None)
    assert len(split(records, 0.1, 20).val_images) == 6
    assert len(split(records, 0.1, 20).train_images) == 20
