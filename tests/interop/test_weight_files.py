"""Files of weights: formats, containers, damage, and pickles that would run code."""

import argparse
import functools
import pathlib
import pickle
import sys

import chex
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch_networks

from jaxcnn.errors import UserError
from jaxcnn.interop.weight_files import read_weights, write_weights


@pytest.mark.parametrize("extension", [".safetensors", ".pth", ".pt"])
def test_write_weights_keeps_the_bits(extension, entries, tmp_path):
    if extension != ".safetensors":
        pytest.importorskip("torch")
    path = tmp_path / f"lenet5{extension}"
    path.write_text("an older file")
    # As a transposed array lies in memory, which the formats do not have.
    transposed = {**entries, "fc1.weight": np.asfortranarray(entries["fc1.weight"])}
    write_weights(path, transposed)
    back = read_weights(path)
    chex.assert_trees_all_equal(back, entries)
    chex.assert_trees_all_equal_dtypes(back, entries)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing temporary is left


@pytest.mark.parametrize("extension", [".safetensors", ".pth"])
def test_write_weights_and_read_weights_agree_with_pytorch(extension, entries, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    in_torch = {".safetensors": (save_file, load_file), ".pth": (torch.save, torch.load)}
    save, load = in_torch[extension]
    ours, theirs = tmp_path / f"ours{extension}", tmp_path / f"theirs{extension}"
    write_weights(ours, entries)
    model = torch_networks.lenet5(torch)
    model.load_state_dict(load(ours), strict=True)
    save(model.state_dict(), theirs)
    chex.assert_trees_all_equal(read_weights(theirs), entries)

    save({n: t.bfloat16() for n, t in model.state_dict().items()}, theirs)
    rounded = {n: a.astype(ml_dtypes.bfloat16).astype(np.float32) for n, a in entries.items()}
    read = read_weights(theirs)
    chex.assert_trees_all_equal({n: a.astype(np.float32) for n, a in read.items()}, rounded)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("model_best.pth.tar", ["state_dict"]),
        ("A.PTH", ["model_state_dict"]),
        ("pytorch_model.bin", ["model"]),
        ("a.Pt", ["net"]),
        ("a.pt", ["ema"]),
        ("last.ckpt", ["model", "state_dict"]),
    ],
)
def test_read_weights_finds_a_state_dict_in_a_checkpoint(name, keys, entries, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    content = {n: torch.nn.Parameter(torch.tensor(a)) for n, a in entries.items()}
    for key in reversed(keys):
        content = {"epoch": 3, "best": torch.tensor(0.5), key: content}
    torch.save(content, tmp_path / name)
    chex.assert_trees_all_equal(read_weights(tmp_path / name), entries)
    said = f"reading the weights under {' > '.join(map(repr, keys))}\n"
    assert capsys.readouterr().out.endswith(said)


def test_read_weights_ignores_foreign_objects_beside_a_state_dict(entries, tmp_path):
    torch = pytest.importorskip("torch")
    content = {"state_dict": {n: torch.tensor(a) for n, a in entries.items()}}
    content["hyper_parameters"] = argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a"))
    torch.save(content, tmp_path / "lightning.ckpt")
    chex.assert_trees_all_equal(read_weights(tmp_path / "lightning.ckpt"), entries)


def test_read_weights_compares_the_crc_of_a_zip_file(entries, tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "lenet5.pth"
    write_weights(path, entries)
    data = bytearray(path.read_bytes())
    data[data.index(entries["fc1.weight"].tobytes()) + 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="lenet5.pth is corrupt .*CRC-32 of .*data/"):
        read_weights(path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_read_weights_refuses_a_pickle_that_runs_code(form, tmp_path):
    torch = pytest.importorskip("torch")
    path, touched = tmp_path / "malicious.pth", tmp_path / "touched"
    content = {"conv1.weight": Malicious(touched)}
    if form == "zip":
        torch.save(content, path)
        torch.load(path, weights_only=False)
    else:
        path.write_bytes(pickle.dumps(content))
        pickle.loads(path.read_bytes())
    touched.unlink()  # it is malicious
    with pytest.raises(UserError, match="is refused: .*save the model's state_dict") as error:
        read_weights(path)
    assert not touched.exists() and "\n" not in str(error.value)


def test_read_weights_says_what_cannot_be_read(entries, tmp_path):
    def assert_refused(path, message):
        with pytest.raises(UserError, match=message) as error:
            read_weights(path)
        assert path.name in str(error.value) and "\n" not in str(error.value)

    assert_refused(
        tmp_path / "lenet5.h5", "no extension of a weights file; expected .safetensors, .pth, .pt"
    )
    assert_refused(tmp_path / "missing.safetensors", "No such file")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert_refused(folder, "Is a directory")

    whole = safetensors.numpy.save(entries)
    for name, data in {"cut": whole[:-8], "garbage": b"garbage" * 20, "empty": b""}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        assert_refused(path, "is corrupt or no .safetensors file")


def test_read_weights_says_what_cannot_be_read_of_pytorch(entries, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "lenet5.pth"
    write_weights(path, entries)
    whole, refused = path.read_bytes(), "is corrupt or no .pth file|is refused: it is corrupt"
    for data in (whole[: len(whole) // 2], b"garbage" * 20, b"\x93garbage" * 20, b""):
        path.write_bytes(data)
        with pytest.raises(UserError, match=refused) as error:
            read_weights(path)
        assert "\n" not in str(error.value)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"holds a list; expected a state_dict\(\)"):
        read_weights(path)


def test_write_weights_says_what_cannot_be_written(entries, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no extension of a weights file"):
        write_weights(tmp_path / "lenet5.npz", entries)
    with pytest.raises(UserError, match="cannot write .*No such file"):
        write_weights(tmp_path / "missing" / "lenet5.safetensors", entries)
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot write .*Is a directory"):
        write_weights(folder, entries)
    older = tmp_path / "lenet5.safetensors"
    older.write_text("an older file")
    with pytest.raises(UserError, match="cannot write .*Not a directory"):
        write_weights(older / "lenet5.safetensors", entries)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(UserError, match="cannot write .*No space left"):
        write_weights(older, entries)
    assert older.read_text() == "an older file"
    assert {p.name for p in tmp_path.iterdir()} == {folder.name, older.name}


def test_read_weights_says_what_to_install(entries, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for act in (read_weights, functools.partial(write_weights, entries=entries)):
        with pytest.raises(UserError, match=r"pip install -e '\.\[torch\]', or use a \.safetens"):
            act(tmp_path / "lenet5.pth")
    write_weights(tmp_path / "lenet5.safetensors", entries)
