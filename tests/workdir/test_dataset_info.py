"""What a run keeps about its dataset, and folders that have moved or changed."""

import dataclasses
import shutil

import pytest
from helpers import Tiny, open_folder

from jaxcnn import TrainConfig, UserError, train_and_evaluate
from jaxcnn.workdir import dataset_info


def test_describe_does_not_depend_on_the_place_of_a_folder(image_folder, tmp_path):
    info = dataset_info.describe(open_folder(image_folder))
    assert info.class_names == ("cat", "dog", "eel") and info.image_shape == (28, 28, 3)
    assert info.num_train_images == 60
    moved = image_folder.rename(tmp_path / "moved")
    assert dataset_info.describe(open_folder(moved)) == info
    image = next((moved / "train" / "cat").iterdir())
    image.rename(image.with_name("other.png"))
    assert dataset_info.describe(open_folder(moved)).train_files != info.train_files


def test_write_and_read_agree(tmp_path):
    assert dataset_info.read(tmp_path) is None
    info = dataset_info.DatasetInfo(("$", "\u00e9"), (2, 3, 1), 5, "abc")
    dataset_info.write(tmp_path, info)
    assert dataset_info.read(tmp_path) == info


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "\xff", '{"class_names": 3, "image_shape": [1, 2, 3]}', "nul"]
)
def test_read_names_a_corrupt_file(text, tmp_path):
    (tmp_path / "dataset.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=r"dataset.json is not a description .*; delete") as error:
        dataset_info.read(tmp_path)
    assert "\n" not in str(error.value)


def test_train_resumes_on_a_moved_folder_and_refuses_a_changed_one(image_folder, tmp_path):
    run = tmp_path / "run"
    config = TrainConfig(
        dataset=f"folder:{image_folder}",
        stream_size=8,
        batch_size=20,
        epochs=1,
        workdir=str(run),
    )
    result = train_and_evaluate(config, model=Tiny())
    (run / "result.json").unlink()  # as if the run was stopped after its last checkpoint
    moved = image_folder.rename(tmp_path / "moved")
    config = dataclasses.replace(config, dataset=f"folder:{moved}")
    again = train_and_evaluate(config, model=Tiny())
    assert again["test_loss"] == result["test_loss"]
    (run / "result.json").unlink()

    shutil.copy(moved / "train" / "cat" / "03.png", moved / "train" / "cat" / "new.png")
    with pytest.raises(UserError, match="num_train_images is 61; expected 60, as when the run"):
        train_and_evaluate(config, model=Tiny())
    (moved / "train" / "cat" / "new.png").unlink()
    (moved / "train" / "cat").rename(moved / "train" / "ape")
    (moved / "val" / "cat").rename(moved / "val" / "ape")
    with pytest.raises(UserError, match="class_names is .*'ape'.*; expected .*'cat'"):
        train_and_evaluate(config, model=Tiny())
