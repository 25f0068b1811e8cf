"""Trained weights that the package ships: a `.safetensors` file and a card of each run."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn import config as configs
from jaxcnn import records
from jaxcnn.errors import RunError, lookup
from jaxcnn.files import write_atomically
from jaxcnn.interop.trained import Trained, load_run, make_card, make_model
from jaxcnn.workdir.dataset_info import DatasetInfo
from jaxcnn.workdir.folder import read_result

FOLDER = importlib.resources.files("jaxcnn") / "pretrained"


def cards() -> dict[str, dict[str, Any]]:
    """Return the card of each set of weights by its name.

    A card is the content of `result.json`, with the command, the config, the description of the
    dataset, and the sha256 of the weights.
    """
    files = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".json"))
    return {name.removesuffix(".json"): json.loads((FOLDER / name).read_text()) for name in files}


def print_cards() -> None:
    """Print a line for each set of weights: name, network, test accuracy, command."""
    for name, card in cards().items():
        accuracy = f"{card['num_correct']:,} of {card['num_test_examples']:,} test images correct"
        print(f"{name:27} {card['num_parameters']:7,} parameters; {accuracy}; {card['command']}")


def load_pretrained(name: str) -> Trained:
    """Load weights that the package ships.

    Args:
      name: a key of `cards()`.

    Raises:
      UserError: there is no such name; the message lists all.
      RunError: the file of weights is not the card's.
    """
    card = lookup("set of pretrained weights", name, cards())
    data = (FOLDER / f"{name}.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise RunError(f"{name}.safetensors of the installed package is corrupt; install it again")
    config = configs.from_dict(card["config"])
    info: DatasetInfo = records.convert(card["dataset_info"], DatasetInfo)
    params = unflatten_dict(safetensors.numpy.load(data), sep=".")
    return Trained(config, info, make_model(config, info), params, card["steps"], name)


def pack(run: Path, name: str, folder: Path) -> None:
    """Write the weights of a finished run and their card, `NAME.safetensors` and `NAME.json`.

    Args:
      run: folder of the run.
      name: name of its preset.
      folder: folder to write into.

    Raises:
      UserError: the folder holds no finished run.
      RunError: the checkpoint is corrupt.
    """
    trained = load_run(run)
    result = read_result(run)
    if result is None:
        raise RunError(f"{run} is not finished; run it to its end")
    params = flatten_dict(trained.params, sep=".")
    data = safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in params.items()})
    card = {
        "command": f"python scripts/train.py {name} --seed {trained.config.seed}",
        **make_card(trained, result),
        "num_correct": round(result["test_accuracy"] * result["num_test_examples"]),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    write_atomically(folder / f"{name}.safetensors", data)
    write_atomically(folder / f"{name}.json", json.dumps(card, indent=2) + "\n")
