"""Lazily decoded images, and the policy for corrupt ones."""

import logging
import struct
import zlib

import numpy as np
import pytest
from helpers import numbered, open_folder, order_of, save_image
from PIL import Image, TiffImagePlugin

from jaxcnn.data.decode import Images
from jaxcnn.data.sources import Encoded
from jaxcnn.data.stream import evaluation_batches, training_batches
from jaxcnn.errors import UserError


def test_images_skip_a_corrupt_one_for_the_next_and_name_it(caplog):
    good, bad = numbered(23), numbered(23, bad=(5, 6, 22))
    instead = {5: 7, 6: 7, 22: 0}
    expected = [[instead.get(n, n) for n in batch] for batch in order_of(good, batch_size=23)]
    for _ in range(2):
        (order,) = order_of(bad, batch_size=23)
        assert [order] == expected
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3  # each once, though met twice
    assert all(sum(f"number {n} is a bad image" in m for m in messages) == 1 for n in instead)
    assert any("bad image number 3 of its split" in message for message in messages)
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_images_name_few_of_many_corrupt_ones(caplog, monkeypatch):
    monkeypatch.setattr("jaxcnn.data.decode.MOST_WARNINGS", 2)
    order_of(numbered(1001, bad=range(1000)), batch_size=1001)
    ends = [record.getMessage().split("; ")[-1] for record in caplog.records]
    assert ends == [f"skipped, bad image number {n} of its split" for n in (1, 2, 1000)]


def test_evaluation_batches_mask_corrupt_images():
    (batch,) = evaluation_batches(numbered(5, bad=(2,)), batch_size=8)
    assert batch["mask"].tolist() == [True, True, False, True, True, False, False, False]


def test_images_refuse_a_set_without_a_good_one():
    with pytest.raises(UserError, match="every image of the training set is bad"):
        order_of(numbered(4, bad=range(4)))


def test_images_refuse_a_corrupt_one_by_name():
    images = numbered(8, bad=(5,), on_bad_image="refuse")
    for batches in (
        training_batches(images, seed=0, epoch=0, first=0, batch_size=4),
        evaluation_batches(images, batch_size=4),
    ):
        with pytest.raises(UserError, match="number 5 is a bad image.*`on_bad_image` to skip"):
            list(batches)


def test_images_are_scaled_and_cropped_to_the_centre(tmp_path):
    save_image(tmp_path / "wide.png", 300, 200)
    save_image(tmp_path / "wide.jpg", 300, 200)
    with Image.open(tmp_path / "wide.png") as image:
        scaled = image.resize((96, 64), Image.Resampling.BILINEAR)
        expected = np.asarray(scaled)[:, 16:80].astype(int)
    for name in ("wide.png", "wide.jpg"):
        stored = [Encoded((tmp_path / name).read_bytes(), 0, name)]
        images = Images(stored, size=64, channels=3, min_size=1, on_bad_image="refuse")
        assert images.shape == (1, 64, 64, 3)
        difference = np.abs(images[0] - expected)
        assert difference.mean() < 2 and difference.max() < 16
    assert np.abs(np.roll(expected, 4, 1) - expected).mean() > 8  # that would have been seen


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_any_mode_become_color_or_gray(mode, tmp_path):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (40, 40), (204, 204, 204)).convert(mode).save(path)
    stored = [Encoded(path.read_bytes(), 0, "image")]
    for channels in (1, 3):
        images = Images(stored, size=32, channels=channels, min_size=1, on_bad_image="refuse")
        assert images[0].shape == (32, 32, channels)
        assert mode == "1" or np.abs(images[0].astype(int) - 204).max() < 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_of_sixteen_bits_keep_the_upper_eight(suffix, tmp_path):
    path = tmp_path / f"image.{suffix}"
    pixels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    Image.fromarray(pixels).save(path)
    stored = [Encoded(path.read_bytes(), 0, "image")]
    for channels in (1, 3):
        images = Images(stored, size=32, channels=channels, min_size=1, on_bad_image="refuse")
        expected = np.broadcast_to((pixels >> 8)[..., None], (32, 32, channels))
        np.testing.assert_array_equal(images[0], expected)


def decoded(path, channels=1, max_value=None):
    """Return the only pixel value of an image."""
    stored = [Encoded(path.read_bytes(), 0, path.name)]
    options = {"size": 32, "channels": channels, "min_size": 1, "on_bad_image": "refuse"}
    pixels = Images(stored, max_value=max_value, **options)[0]
    assert (pixels == pixels[0, 0, 0]).all()
    return int(pixels[0, 0, 0])


def save_constant(path, value, dtype=np.uint16, **options):
    Image.fromarray(np.full((32, 32), value, dtype)).save(path, **options)
    return path


def test_images_of_twelve_bits_are_scaled_as_the_file_says(tmp_path):
    content = save_constant(tmp_path / "image.tif", 0xFFFF).read_bytes()
    sixteen, twelve = (struct.pack("<HHIHH", 258, 3, 1, bits, 0) for bits in (16, 12))
    assert content.count(sixteen) == 1  # BitsPerSample
    (tmp_path / "twelve.tif").write_bytes(content.replace(sixteen, twelve))
    assert decoded(tmp_path / "twelve.tif") == 255
    stated = TiffImagePlugin.ImageFileDirectory_v2()
    stated[281] = 4095  # MaxSampleValue
    assert decoded(save_constant(tmp_path / "stated.tif", 2048, tiffinfo=stated)) == 128
    (tmp_path / "image.pgm").write_bytes(b"P5 32 32 1023\n" + struct.pack(">H", 512) * 1024)
    assert decoded(tmp_path / "image.pgm") == 128


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_of_twelve_bits_in_sixteen_need_a_largest_value(suffix, tmp_path):
    path = save_constant(tmp_path / f"image.{suffix}", 2048)
    with pytest.raises(UserError, match=f"image.{suffix} is .* at most 2048, .*set `max_value`"):
        decoded(path)
    assert decoded(path, max_value=4095) == decoded(path, 3, max_value=4095) == 128
    assert decoded(path, max_value=65535) == 8
    assert decoded(save_constant(path, 4095), max_value=4095) == 255
    with pytest.raises(UserError, match=r"in \[4096, 4096\]; expected at most 4095; set `max"):
        decoded(save_constant(path, 4096), max_value=4095)


def save_rgb16(path, value):
    rows = (b"\0" + struct.pack(">H", value) * 96) * 32
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )
    return path


def test_images_of_sixteen_bit_colors_must_fill_their_range(tmp_path):
    path = tmp_path / "image.png"
    assert decoded(save_rgb16(path, 0x8000), channels=3) == 128
    dark = save_rgb16(path, 4095)
    with pytest.raises(
        UserError, match="16-bit colors are below 4,096, .*set `max_value` to 65535"
    ):
        decoded(dark, channels=3)
    assert decoded(dark, channels=3, max_value=65535) == 15
    with pytest.raises(UserError, match="`max_value` is 4095; expected 65535 for 16-bit colors"):
        decoded(dark, channels=3, max_value=4095)


def test_images_of_floats_are_scaled_by_a_largest_value(tmp_path):
    path = tmp_path / "image.tif"
    assert decoded(save_constant(path, 0.5, np.float32), max_value=1.0) == 128
    assert decoded(save_constant(path, 1.0, np.float32), max_value=1.0) == 255
    for value in (1.5, -0.5, np.nan):
        with pytest.raises(UserError, match="set `max_value`"):
            decoded(save_constant(path, value, np.float32), max_value=1.0)
    assert decoded(save_constant(tmp_path / "eight.png", 90, np.uint8), max_value=1.0) == 90


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_images_are_turned_upright(kind, tmp_path):
    save_image(tmp_path / "upright.png", 90, 60, seed=3)
    with Image.open(tmp_path / "upright.png") as upright:
        upright.load()
    upside = [getattr(Image.Transpose, name) for name in TURNS]  # as a camera would store it
    expected = None
    for orientation, turn in enumerate([None, *upside], 1):
        exif = Image.Exif()
        exif[274] = orientation
        path = tmp_path / f"{orientation}.{kind}"
        stored = upright if turn is None else upright.transpose(turn)
        stored.save(path, exif=exif, **({"quality": 100} if kind in ("jpg", "webp") else {}))
        images = Images(
            [Encoded(path.read_bytes(), 0, path.name)],
            **{"size": 60, "channels": 3, "min_size": 1, "on_bad_image": "refuse"},
        )
        expected = images[0].astype(int) if turn is None else expected
        assert np.abs(images[0] - expected).mean() < 3


TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90")
TURNS += ("TRANSVERSE", "ROTATE_270")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_images_of_unknown_range_are_corrupt(dtype, image_folder):
    path = image_folder / "train" / "cat" / "unknown.tif"
    Image.fromarray(np.ones((40, 40), dtype)).save(path)
    message = f"{path}.*the range of its pixels is unknown"
    with pytest.raises(UserError, match=f"1 images are bad: {message}"):
        open_folder(image_folder)
    stored = [Encoded(path.read_bytes(), 0, str(path))]
    images = Images(stored, size=32, channels=1, min_size=1, on_bad_image="refuse")
    with pytest.raises(UserError, match=message):
        images[0]


def test_check_headers_names_bad_images_at_once(image_folder):
    paths = [image_folder / "train" / "cat" / f"bad{i}.jpg" for i in range(4)]
    for path in paths:
        path.write_bytes(b"no image")
    small = image_folder / "val" / "dog" / "a.png"
    save_image(small, 100, 31)
    with pytest.raises(UserError, match="5 images are bad: .*bad0.jpg.* and 2 others; .*skip"):
        open_folder(image_folder)
    for path in paths:
        path.unlink()
    with pytest.raises(
        UserError, match="a.png: the image has 100x31 pixels; expected at least 32 on"
    ):
        open_folder(image_folder)
    assert len(open_folder(image_folder, min_size=31).test_images) == 22
    assert len(open_folder(image_folder, "skip").test_images) == 22


def test_images_never_run_postscript():
    stored = [
        Encoded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n", 0, "a")
    ]
    images = Images(stored, size=32, channels=3, min_size=1, on_bad_image="refuse")
    with pytest.raises(UserError, match="a is a bad image: expected one of the formats"):
        images[0]
