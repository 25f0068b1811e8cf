"""The listing of a folder of images: its layout, its classes and its files."""

import os

import pytest
from helpers import CLASSES, open_folder, save_image

from jaxcnn.data.folders import IGNORED, TEST_NAMES, list_folder
from jaxcnn.errors import UserError


@pytest.fixture
def make_files(tmp_path):
    """A function that creates empty files, which are listed as images, and returns their folder."""

    def make(*paths):
        for path in paths:
            (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / path).touch()
        return tmp_path / "data"

    return make


TRAIN = ("train/cat/1.png", "train/dog/1.png")


def names(files, folder):
    return [os.path.relpath(path, folder) for path in files.paths]


@pytest.mark.parametrize("name", TEST_NAMES)
def test_list_folder_takes_the_first_folder_of_test_images(name, make_files):
    folder = make_files(*TRAIN, f"{name}/dog/2.png", "test/dog/3.png")
    listed = list_folder(folder)
    assert names(listed.train, folder) == [*TRAIN] and listed.train.labels == [0, 1]
    expected = ["test/dog/2.png", "test/dog/3.png"] if name == "test" else [f"{name}/dog/2.png"]
    assert names(listed.test, folder) == expected and set(listed.test.labels) == {1}
    assert listed.class_names == ("cat", "dog")


def test_list_folder_reads_sub_folders_and_ignores_what_is_no_image(make_files):
    ignored = [f"{name}/1.png" for name in (*IGNORED, ".ipynb_checkpoints")]
    folder = make_files(
        *TRAIN,
        *("train/cat/2024/May/a.JPG", "train/cat/2024/b.webp", "val/cat/x/1.png"),
        *("train/cat/notes.txt", "train/cat/.a.png", "train/cat/scene.eps", "train/readme.png"),
        *(f"train/{path}" for path in ignored),
        *(f"val/cat/{path}" for path in ignored),
    )
    listed = list_folder(folder)
    assert names(listed.train, folder) == [
        *("train/cat/1.png", "train/cat/2024/May/a.JPG", "train/cat/2024/b.webp"),
        "train/dog/1.png",
    ]
    assert names(listed.test, folder) == ["val/cat/x/1.png"]
    assert listed.class_names == ("cat", "dog")


def test_list_folder_follows_links_but_no_loops(make_files, tmp_path):
    folder = make_files(*TRAIN, "val/dog/2.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.png").touch()
    (folder / "train" / "eel").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "dog" / "more").symlink_to(tmp_path / "elsewhere")
    assert list_folder(folder).train.labels == [0, 1, 1, 2]
    (folder / "train" / "cat" / "again").symlink_to("..")
    with pytest.raises(UserError, match="cat/again is a link to .*/train, which contains it"):
        list_folder(folder)


def test_list_folder_matches_names_of_macos(make_files):
    folder = make_files("train/caf\u00e9/1.png", "train/dog/2.png", "val/cafe\u0301/3.png")
    listed = list_folder(folder)
    assert listed.class_names == ("caf\u00e9", "dog")
    assert names(listed.test, folder) == ["val/cafe\u0301/3.png"] and listed.test.labels == [0]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((), "data does not exist; set `dataset`"),
        (("images/cat/1.png",), "has the folders images; expected images in train/CLASS/"),
        (("cat/1.png", "dog/1.png"), "has the folders cat, dog; .*set `hold_out` to 0.1"),
        (TRAIN, "has the folders train; expected .*set `hold_out` to 0.1"),
        (("val/cat/1.png",), "has the folders val; expected images in train"),
        (
            ("1.png", "2.png"),
            "no folders of classes; .*single class, pass the folder that contains",
        ),
        (("train/1.png", "val/2.png"), "train has no folders of classes; expected images in CLASS"),
        (("train/cat/1.png", "val/cat/2.png"), "has a single class, cat; expected folders of two"),
        (
            (*TRAIN, "val/fox/1.png"),
            "val has classes that are missing from .*train: fox; expected some of cat, dog",
        ),
        ((*TRAIN, "val/cat/readme"), "val has no test images; expected some in CLASS/"),
        ((*TRAIN, "train/fox/a.txt", "val/cat/1.png"), "train has no images of fox; expected"),
        ((*TRAIN, "val/cat/1.png", "validation/cat/1.png"), "has val and validation; expected one"),
    ],
)
def test_list_folder_refuses_another_layout(paths, message, make_files):
    with pytest.raises(UserError, match=message):
        list_folder(make_files(*paths))


def test_list_folder_refuses_a_file_and_an_unreadable_folder(make_files, monkeypatch):
    folder = make_files(*TRAIN, "val/cat/1.png")
    with pytest.raises(UserError, match="1.png is no folder; set `dataset`"):
        list_folder(folder / TRAIN[0])

    def deny(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", deny)  # root may list every folder
    with pytest.raises(UserError, match=r"train cannot be listed \(Permission denied\)"):
        list_folder(folder)


IMAGES = [f"{name}/{i:03d}.png" for name in CLASSES for i in range(100)]


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_list_folder_holds_out_a_part_of_each_class(prefix, make_files):
    folder = make_files(*(prefix + path for path in IMAGES))
    listed = list_folder(folder, hold_out=0.1)
    assert sorted(names(listed.train, folder) + names(listed.test, folder)) == sorted(
        prefix + path for path in IMAGES
    )
    for label in range(3):
        assert 4 <= listed.test.labels.count(label) <= 18
    assert listed.class_names == CLASSES
    assert 16 <= len(listed.test.paths) <= 44
    rows = {tuple(name[-7:] for name in names(listed.test, folder) if c in name) for c in CLASSES}
    assert len(rows) == 3  # equal file names are not held out from all classes


def test_list_folder_holds_out_the_same_images_when_others_are_added(make_files, tmp_path):
    folder = make_files(*IMAGES)
    held_out = names(list_folder(folder, hold_out=0.1).test, folder)
    make_files(*(path.replace(".png", "-new.png") for path in IMAGES), "fox/1.png", "fox/2.png")
    more = names(list_folder(folder, hold_out=0.1).test, folder)
    assert set(held_out) < set(more) and not (set(more) - set(held_out)) & set(IMAGES)
    folder.rename(tmp_path / "moved")
    assert names(list_folder(tmp_path / "moved", hold_out=0.1).test, tmp_path / "moved") == more


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_list_folder_leaves_both_splits_an_image_of_small_classes(fraction, make_files):
    folder = make_files("one/1.png", "two/1.png", "two/2.png", "three/1.png", "three/2.png")
    listed = list_folder(folder, hold_out=fraction)
    assert listed.train.labels == [0, 1, 2] and listed.test.labels == [1, 2]


def test_list_folder_takes_train_for_a_class_among_classes(make_files):
    folder = make_files(*(f"{name}/{i}.png" for name in ("bus", "train") for i in range(9)))
    assert list_folder(folder, hold_out=0.2).class_names == ("bus", "train")


def test_list_folder_refuses_to_hold_out_beside_test_images(make_files):
    with pytest.raises(UserError, match="`hold_out` is 0.1, but .* has val; remove one"):
        list_folder(make_files(*TRAIN, "val/cat/1.png"), hold_out=0.1)
    with pytest.raises(UserError, match="cat has no folders of classes; .*single class"):
        list_folder(make_files(*TRAIN) / "train" / "cat", hold_out=0.1)


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
