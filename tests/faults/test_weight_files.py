"""Mutated files of weights: each is read or refused in one line, and nothing in it is executed."""

import pathlib
import pickle
import zipfile

import numpy as np
import pytest
from helpers import rounds

from jaxcnn.errors import UserError
from jaxcnn.interop.torch_weights import from_torch, to_torch
from jaxcnn.interop.weight_files import read_weights, write_weights

COUNT = 20  # files of each format and kind of damage: 200, and 20 hostile ones, in a second


class Touch:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


def flipped(data, rng):
    data = bytearray(data)
    for position in rng.integers(len(data), size=rng.integers(1, 4)):
        data[position] ^= 1 << rng.integers(8)
    return bytes(data)


def flipped_in_the_head(data, rng):
    return flipped(data[:600], rng) + data[600:]


def cut(data, rng):
    return data[: rng.integers(len(data))]


def zeroed(data, rng):
    start, length = rng.integers(len(data)), rng.integers(1, 5000)
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def spliced(data, rng):
    first, second = sorted(rng.integers(len(data), size=2))
    return data[:first] + data[second:] + data[first:second]


MUTATIONS = (flipped, flipped_in_the_head, cut, zeroed, spliced)


def hostile(path, whole, touched, rng):
    """Replace the pickle of a PyTorch file by one that touches a file, at a random depth."""
    content = Touch(touched)
    for _ in range(rng.integers(4)):
        content = {str(rng.choice(["state_dict", "model", "conv1.weight", "x"])): content}
    with zipfile.ZipFile(path, "w") as archive, zipfile.ZipFile(whole) as original:
        for name in original.namelist():
            data = original.read(name)
            if name.endswith("data.pkl"):
                data = pickle.dumps(content, protocol=int(rng.integers(6)))
            archive.writestr(name, data)


@pytest.fixture(scope="module")
def params():
    sizes = {"C1": (5, 5, 1, 6), "C3": (5, 5, 6, 16), "C5": (5, 5, 16, 120)}
    sizes |= {"F6": (120, 84), "output": (84, 10)}
    rng = np.random.default_rng(0)
    return {
        name: {"kernel": rng.normal(size=shape), "bias": rng.normal(size=shape[-1])}
        for name, shape in sizes.items()
    }


def read_or_refused(path, params):
    """Return whether the file is read; a refusal must be one line that names the file."""
    try:
        entries = read_weights(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return False
    try:
        from_torch("lenet5", entries, params)
    except UserError as error:
        assert "\n" not in str(error)
        return False
    return True


@pytest.mark.fuzz
@pytest.mark.parametrize("extension", [".safetensors", ".pth"])
def test_mutated_weight_files_are_read_or_refused(extension, params, tmp_path):
    if extension == ".pth":
        pytest.importorskip("torch")
    path = tmp_path / f"lenet5{extension}"
    write_weights(path, to_torch("lenet5", params))
    assert read_or_refused(path, params)
    whole, refused, rng = path.read_bytes(), 0, np.random.default_rng(0)
    for i in rounds(COUNT * len(MUTATIONS)):
        path.write_bytes(MUTATIONS[i % len(MUTATIONS)](whole, rng))
        refused += not read_or_refused(path, params)
    # safetensors has no checksum, so flipped bits of a weight are another weight.
    assert refused >= (0.4 if extension == ".safetensors" else 0.8) * i


def test_hostile_pickles_are_refused_and_execute_nothing(params, tmp_path):
    torch = pytest.importorskip("torch")
    whole, path, touched = (tmp_path / name for name in ("whole.pth", "bad.pth", "touched"))
    write_weights(whole, to_torch("lenet5", params))
    rng = np.random.default_rng(0)
    hostile(path, whole, touched, rng)
    torch.load(path, weights_only=False)
    touched.unlink()  # the pickle does what it is built for
    for _ in range(COUNT):
        hostile(path, whole, touched, rng)
        assert not read_or_refused(path, params) and not touched.exists()
