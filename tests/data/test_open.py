"""A dataset by its name: whole and in memory, or streamed."""

import pytest

from jaxcnn.data.open import check_name, open_dataset, open_split
from jaxcnn.errors import UserError

STREAMED = {"size": 28, "min_size": 32, "on_bad_image": "refuse"}


def test_open_dataset_loads_small_sets_whole():
    dataset = open_dataset("mnist5k", **STREAMED)
    assert not dataset.is_streamed and dataset.train_images.shape == (4000, 28, 28, 1)


def test_open_dataset_streams_a_folder(image_folder):
    dataset = open_dataset(f"folder:{image_folder}", **STREAMED)
    assert dataset.is_streamed and dataset.train_images.shape == (60, 28, 28, 3)


@pytest.mark.parametrize("name", ["mnist5k", "cifar10", "folder:anywhere", "tfds:anything"])
def test_check_name_accepts_datasets_that_may_exist(name):
    check_name(name)


@pytest.mark.parametrize("name", ["mnist5", "folder", ""])
def test_check_name_lists_the_datasets(name):
    with pytest.raises(
        UserError, match="are mnist5k, mnist, .*mnist_corrupted/..., .*folder:DIR, tfds:NAME$"
    ):
        check_name(name)


def test_open_dataset_passes_the_options_of_streams_on(image_folder):
    (image_folder / "val").rename(image_folder / "aside")
    options = STREAMED | {"channels": 1, "hold_out": 0.2, "max_value": 255.0}
    dataset = open_dataset(f"folder:{image_folder}", **options)
    assert len(dataset.train_images) + len(dataset.test_images) == 60
    assert 3 <= len(dataset.test_images) < 30
    assert dataset.train_images[0].shape == (28, 28, 1)


@pytest.mark.parametrize(("name", "split"), [("mnist5k", "val"), ("tfds:any", "test")])
def test_open_split_refuses_a_split_that_it_does_not_know(name, split):
    with pytest.raises(UserError, match=f"`split` is {split}, but {name} is known to have train"):
        open_split(name, split, **STREAMED)
