"""Weights that the package ships: each is the run that its card describes."""

import hashlib
import json

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxcnn import PRESETS
from jaxcnn.errors import RunError, UserError
from jaxcnn.interop import pretrained
from jaxcnn.interop.pretrained import cards, load_pretrained
from jaxcnn.interop.trained import input_shape

NAMES = sorted(cards())


@pytest.mark.parametrize("name", NAMES)
def test_load_pretrained_gives_the_network_of_the_preset(name):
    trained, card = load_pretrained(name), cards()[name]
    preset = PRESETS[name].config
    for field in ("model", "dataset", "transforms", "optimizer", "epochs", "batch_size", "seed"):
        assert getattr(trained.config, field) == getattr(preset, field)
    assert trained.config.pixel_mean == preset.pixel_mean
    assert card["command"] == f"python scripts/train.py {name} --seed 0"
    assert card["num_correct"] / card["num_test_examples"] == card["test_accuracy"]
    images = jnp.zeros((1, *input_shape(trained.config, trained.info)))
    expected = jax.eval_shape(trained.model.init, jax.random.key(0), images)["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(trained.params, expected)
    size = (pretrained.FOLDER / f"{name}.safetensors").stat().st_size
    assert size < 2**20 and sum(p.size for p in jax.tree.leaves(expected)) == card["num_parameters"]


def test_load_pretrained_notices_other_weights(tmp_path, monkeypatch):
    for name in ("lenet5-mnist.json", "lenet5-mnist.safetensors"):
        (tmp_path / name).write_bytes((pretrained.FOLDER / name).read_bytes())
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    assert load_pretrained("lenet5-mnist").name == "lenet5-mnist"
    with (tmp_path / "lenet5-mnist.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")
    with pytest.raises(RunError, match="lenet5-mnist.safetensors .* is corrupt; install it again"):
        load_pretrained("lenet5-mnist")
    with pytest.raises(UserError, match="no set of pretrained weights is called 'lenet'"):
        load_pretrained("lenet")


def test_pack_writes_what_load_pretrained_reads(tmp_path, monkeypatch):
    expected = load_pretrained("lenet5-mnist")
    result = {n: v for n, v in cards()["lenet5-mnist"].items() if n not in ("config", "sha256")}
    monkeypatch.setattr(pretrained, "load_run", lambda _: expected)
    monkeypatch.setattr(pretrained, "read_result", lambda _: result)
    pretrained.pack(tmp_path, "lenet5-mnist", tmp_path)
    card = json.loads((tmp_path / "lenet5-mnist.json").read_text())
    data = (tmp_path / "lenet5-mnist.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    found = load_pretrained("lenet5-mnist")
    chex.assert_trees_all_equal(found.params, expected.params)
    assert (found.config, found.info) == (expected.config, expected.info)
    monkeypatch.setattr(pretrained, "read_result", lambda _: None)
    with pytest.raises(RunError, match="is not finished; run it to its end"):
        pretrained.pack(tmp_path, "lenet5-mnist", tmp_path)
