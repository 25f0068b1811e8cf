"""Hostile files in a folder of images: each is read, refused by name or skipped; none hangs."""

import contextlib
import functools
import io
import os
import resource
import shutil
import signal
import socket
import struct
import zlib

import numpy as np
import pytest
from helpers import CLASSES, open_folder, rounds, run_script, save_image
from PIL import Image

from jaxcnn.data import folders
from jaxcnn.data.sources import MAX_BYTES
from jaxcnn.errors import UserError

# Pillow warns about some of the files, which is not an error outside of the suite.
pytestmark = pytest.mark.filterwarnings("default")

PIXELS = np.random.default_rng(0).integers(256, size=(40, 48, 3), dtype=np.uint8)


def encoded(kind, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, format=kind, **options)
    return file.getvalue()


def bind_socket(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # a relative name, because the length of an address is limited


def sparse(path):
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)


# No regular files: suffix and writer.
SPECIAL = {
    "fifo": ("png", os.mkfifo),
    "socket": ("jpg", bind_socket),
    "folder": ("jpg", lambda path: path.mkdir()),
    "broken-link": ("png", lambda path: path.symlink_to("nowhere")),
    "looping-link": ("png", lambda path: path.symlink_to(path.name)),
    "link-to-device": ("png", lambda path: path.symlink_to("/dev/zero")),
    "link-to-terminal": ("png", lambda path: path.symlink_to("/dev/ptmx")),
    "link-to-folder": ("png", lambda path: path.symlink_to("..")),
    "link-through-file": ("png", lambda path: path.symlink_to("/etc/passwd/a.png")),
    "sparse": ("tif", sparse),
}


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *chunks, depth=8, color=2, interlace=0):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    chunks = (chunk(b"IHDR", header), *chunks, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bomb(path, *, size):
    """Write a PNG whose few kilobytes decode to a huge square of one color."""
    rows, row = zlib.compressobj(), bytes(1 + size // 8)
    data = b"".join(rows.compress(row) for _ in range(size)) + rows.flush()
    path.write_bytes(png(size, size, chunk(b"IDAT", data), depth=1, color=0))


def patched(data, position, value):
    return data[:position] + value + data[position + len(value) :]


def resized_jpeg(width, height):
    data = encoded("JPEG")
    return patched(data, data.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def tiff_with(tag, kind, count, value):
    """Return a TIFF whose directory has one entry that contradicts its pixels."""
    data = encoded("TIFF")
    (first,) = struct.unpack_from("<I", data, 4)
    for i in range(struct.unpack_from("<H", data, first)[0]):
        if struct.unpack_from("<H", data, first + 2 + 12 * i)[0] == tag:
            return patched(data, first + 2 + 12 * i, struct.pack("<HHII", tag, kind, count, value))
    raise AssertionError(f"no tag {tag}")


def with_exif(exif):
    return encoded("JPEG", exif=b"Exif\x00\x00" + exif)


IDAT = chunk(b"IDAT", zlib.compress(bytes((1 + 3 * 40) * 40)))
EXPANDED = zlib.compress(bytes(2**24))  # 16 MiB

# Regular files that are refused: suffix and content.
BAD = {
    "empty": ("png", b""),
    "one-byte": ("jpg", b"\xff"),
    "zeros": ("png", bytes(100_000)),
    "text": ("jpg", b"no image\n" * 100),
    "shell": ("png", b"#!/bin/sh\ntouch /tmp/owned\n"),
    "pickle": ("png", b"\x80\x04\x95\x1d\x00\x00\x00cposix\nsystem\n(S'true'\ntR."),
    "zip": ("jpg", b"PK\x03\x04" + bytes(100)),
    "svg": ("png", b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'/>"),
    "html": ("jpg", b"<!DOCTYPE html><html>429 Too Many Requests</html>"),
    "lfs-pointer": ("png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    "postscript": (
        "png",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n"
        b"(/tmp/owned) (w) file closefile showpage\n%%EOF\n",
    ),
    "pdf": ("jpg", b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n"),
    "fits": ("png", b"SIMPLE  =                    T" + b" " * 2850),
    "png-signature": ("png", b"\x89PNG\r\n\x1a\n"),
    "png-without-pixels": ("png", png(40, 40)),
    "png-zero-width": ("png", png(0, 40, IDAT)),
    "png-huge": ("png", png(2**31 - 1, 2**31 - 1, IDAT)),
    "png-tall": ("png", png(40, 2**31 - 1, IDAT)),
    "png-wide": ("png", png(2**31 - 1, 40, IDAT)),
    "png-depth": ("png", png(40, 40, IDAT, depth=3)),
    "png-color": ("png", png(40, 40, IDAT, color=9)),
    "png-palette-missing": ("png", png(40, 40, IDAT, color=3, depth=16)),
    "png-no-zlib": ("png", png(40, 40, chunk(b"IDAT", b"no compressed data"))),
    "png-bomb": ("png", functools.partial(bomb, size=30_000)),
    "png-bomb-of-100-megapixels": ("png", functools.partial(bomb, size=10_000)),
    "png-text-bomb": ("png", png(40, 40, chunk(b"zTXt", b"key\x00\x00" + EXPANDED), IDAT)),
    "png-profile-bomb": ("png", png(40, 40, chunk(b"iCCP", b"key\x00\x00" + EXPANDED), IDAT)),
    "jpeg-signature": ("jpg", b"\xff\xd8\xff"),
    "jpeg-zero-height": ("jpg", resized_jpeg(48, 0)),
    "jpeg-huge": ("jpg", resized_jpeg(65_500, 65_500)),
    "jpeg-without-tables": ("jpg", encoded("JPEG").replace(b"\xff\xdb", b"\xff\xee")),
    "jpeg-header-only": ("jpg", encoded("JPEG")[: encoded("JPEG").index(b"\xff\xda")]),
    "gif-huge": (
        "gif",
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\0\x02\x01\0;",
    ),
    "gif-without-frame": ("gif", b"GIF89a\x40\x00\x40\x00\x00\x00\x00;"),
    "bmp-huge": ("bmp", patched(encoded("BMP"), 18, struct.pack("<ii", 2**30, 2**30))),
    "bmp-negative-width": ("bmp", patched(encoded("BMP"), 18, struct.pack("<i", -48))),
    "bmp-offset": ("bmp", patched(encoded("BMP"), 10, struct.pack("<I", 2**31 - 1))),
    "bmp-depth": ("bmp", patched(encoded("BMP"), 28, struct.pack("<H", 77))),
    "tiff-width": ("tif", tiff_with(256, 4, 1, 2**32 - 1)),
    "tiff-zero-width": ("tif", tiff_with(256, 4, 1, 0)),
    "tiff-strip-offset": ("tif", tiff_with(273, 4, 1, 2**32 - 2)),
    "tiff-strips": ("tif", tiff_with(273, 4, 2**31, 8)),
    "tiff-compression": ("tif", tiff_with(259, 3, 1, 7)),
    "tiff-loop": ("tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"),
    "tiff-floats": ("tif", None),
    "ppm-huge": ("ppm", b"P6 99999999 99999999 255\n" + bytes(100)),
    "ppm-text": ("ppm", b"P6 " + b"9" * 100_000),
    "ppm-short": ("ppm", b"P6 64 64 255\n" + bytes(64)),
    "webp-huge": ("webp", patched(encoded("WEBP"), 24, b"\xff\xff\xff\xff\xff\xff")),
    "jp2-cut": ("jp2", encoded("JPEG2000")[:90]),
    "tga-huge": ("tga", b"\0\0\2\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\x18\0" + bytes(64)),
    "ico-empty": ("ico", b"\0\0\1\0\0\0"),
    "small": ("png", png(8, 8, IDAT)),
    "line": ("png", png(40_000, 1, chunk(b"IDAT", zlib.compress(bytes(1 + 3 * 40_000))))),
}
BAD |= {
    f"{kind.lower()}-cut-at-{share}-percent": (
        kind.lower(),
        encoded(kind)[: len(encoded(kind)) * share // 100],
    )
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "QOI")
    for share in (10, 60)
}
floats = io.BytesIO()
Image.fromarray(PIXELS[..., 0].astype(np.float32)).save(floats, format="TIFF")
BAD["tiff-floats"] = ("tif", floats.getvalue())

# Strange files that are read nevertheless; Pillow fills missing rows of a PNG with zeros.
GARBLED = b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x4d\0\0\0\0\0\0\0"  # EXIF's orientation is 77
FRAMES = {"save_all": True, "append_images": [Image.new("P", (9, 9))] * 40}
GOOD = {
    "exif-garbage": ("jpg", with_exif(b"no tags")),
    "exif-loop": ("jpg", with_exif(b"II*\0\x08\0\0\0\0\0\x08\0\0\0")),
    "exif-orientation-77": ("jpg", with_exif(GARBLED)),
    "wrong-extension": ("png", encoded("JPEG")),
    "trailing-bytes": ("jpg", encoded("JPEG") + b"\0" * 10_000),
    "png-too-few-rows": ("png", png(40, 400, IDAT)),
    "png-chunk-length": ("png", patched(encoded("PNG"), 33, b"\xff\xff\xff\xff")),
    "progressive": ("jpg", encoded("JPEG", progressive=True)),
    "cmyk": ("jpg", encoded("JPEG", "CMYK")),
    "transparent-palette": ("png", encoded("PNG", "P", transparency=bytes(range(200)))),
    "animation": ("gif", encoded("GIF", "P", **FRAMES)),
}


@contextlib.contextmanager
def time_limit(seconds):
    """Interrupt a block that waits, as for the other end of a fifo."""

    def interrupt(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(6):
        save_image(folder / ("train" if i < 3 else "val") / CLASSES[i % 3] / f"{i}.png", 40, 40, i)
    return folder


@contextlib.contextmanager
def placed(folder, name, suffix, content):
    """Put a hostile file into a training and a test class; remove it afterwards."""
    paths = [folder / split / "dog" / f"{name}.{suffix}" for split in ("train", "val")]
    try:
        for path in paths:
            path.write_bytes(content) if isinstance(content, bytes) else content(path)
        yield
    finally:
        for path in paths:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def read_all(dataset):
    """Return how many test images are not masked, after reading every image."""
    for row in range(len(dataset.train_images)):
        dataset.train_images.training_example(row)
    rows = range(len(dataset.test_images))
    return sum(bool(dataset.test_images.evaluation_example(row)["mask"]) for row in rows)


def assert_refused_or_skipped(folder, name, suffix, content):
    with placed(folder, name, suffix, content), time_limit(20):
        with pytest.raises(UserError, match=rf"{name}\.{suffix}.*`on_bad_image` to skip") as error:
            read_all(open_folder(folder))
        assert "\n" not in str(error.value)
        assert read_all(open_folder(folder, "skip")) == 3


@pytest.mark.parametrize("name", SPECIAL)
def test_folder_with_a_special_file_is_refused_at_the_start(name, small_folder):
    suffix, write = SPECIAL[name]
    with placed(small_folder, name, suffix, write), time_limit(20):
        with pytest.raises(UserError, match=rf"2 images are bad: .*{name}\.{suffix}.*skip"):
            open_folder(small_folder)
        assert read_all(open_folder(small_folder, "skip")) == 3


@pytest.mark.parametrize("name", ["postscript", "png-bomb", "jpeg-cut-at-60-percent"])
def test_folder_with_a_hostile_image_is_refused_or_skipped(name, small_folder):
    assert_refused_or_skipped(small_folder, name, *BAD[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_folder_with_any_hostile_image_is_refused_or_skipped(name, small_folder):
    assert_refused_or_skipped(small_folder, name, *BAD[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_folder_with_a_strange_image_is_read(name, small_folder):
    suffix, content = GOOD[name]
    with placed(small_folder, name, suffix, content), time_limit(20):
        assert read_all(open_folder(small_folder)) == 4


@pytest.mark.fuzz
@pytest.mark.parametrize("count", [3, pytest.param(360, marks=pytest.mark.slow)])
def test_folder_with_flipped_bits_is_read_or_refused_by_name(count, small_folder):
    kinds = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "QOI", "TGA"]
    rng = np.random.default_rng(1)
    for i in rounds(count):
        kind = kinds[i % len(kinds)]
        data = encoded(kind)
        flipped = bytearray(data)
        for position in rng.integers(min(len(data), 400), size=3):
            flipped[position] ^= 1 << rng.integers(8)
        with placed(small_folder, "flipped", kind.lower(), bytes(flipped)), time_limit(20):
            with contextlib.suppress(UserError):
                read_all(open_folder(small_folder))
            assert read_all(open_folder(small_folder, "skip")) in (3, 4)


def test_folder_refuses_an_unreadable_image(small_folder, monkeypatch):
    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with placed(small_folder, "private", "png", encoded("PNG")):
        monkeypatch.setattr("jaxcnn.data.sources.open_regular", deny)  # root may read every file
        with pytest.raises(UserError, match="8 images are bad: .*: Permission denied"):
            open_folder(small_folder)


@pytest.mark.slow
def test_run_on_hostile_images_ends_in_one_line_or_skips_them(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "images")
    hostile = BAD | SPECIAL
    assert len(hostile) >= 60
    with contextlib.ExitStack() as stack:
        for name, (suffix, content) in hostile.items():
            stack.enter_context(placed(folder, name, suffix, content))
        flags = f"--dataset folder:{folder} --stream-size 28 --batch-size 2 --epochs 1".split()
        train = functools.partial(run_script, "train.py", *flags, "--workdir", tmp_path / "run")
        refused = train()
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert refused.stderr.splitlines()[-1].startswith("error: ")
        skipped = train("--on-bad-image", "skip")
        assert skipped.returncode == 0, skipped.stderr
        assert "Traceback" not in skipped.stderr
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert kilobytes < 2 * 2**20  # what importing jax and compiling a step takes, and no bomb


def test_extensions_are_those_of_formats_that_are_decoded():
    assert {"EPS", "MPEG", "PDF", "WMF", "HDF5"}.isdisjoint(folders.FORMATS)
    assert set(folders.decoders()) <= set(folders.FORMATS) <= {*Image.SAVE, "MPO", *Image.OPEN}
