"""The listing of a folder of images: its layout, its classes and its files."""

import os

import pytest
from helpers import open_folder, save_image

from jaxcnn.data.folders import list_folder
from jaxcnn.errors import UserError


@pytest.mark.parametrize("name", ["$", "$x$", "ä 日本", "-rf", "[red]", "%s", "a.jpg", "con.tar"])
def test_list_folder_takes_any_printable_name_for_a_class(name, image_folder):
    for split in ("train", "val"):
        save_image(image_folder / split / name / "a.png", 40, 40)
    assert set(list_folder(image_folder).class_names) == {"cat", "dog", "eel", name}


@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[31m", b"\xff\xfe", b"\x7f"])
def test_list_folder_refuses_names_that_cannot_be_printed(name, image_folder):
    os.mkdir(os.path.join(os.fsencode(image_folder), b"train", name))
    with pytest.raises(UserError, match="class folder called '.*'; expected printable") as error:
        list_folder(image_folder)
    assert str(error.value).isprintable()


def test_images_with_a_strange_name_are_named_on_one_line(image_folder):
    (image_folder / "train" / "cat" / "a\nb.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 images are bad: .*a\\nb\.png") as error:
        open_folder(image_folder)
    assert str(error.value).isprintable()
