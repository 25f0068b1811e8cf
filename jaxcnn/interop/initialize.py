"""Start a run from a trained network: choose the layers to take; the others stay random."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn import config as configs
from jaxcnn import report
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError
from jaxcnn.interop.pretrained import cards, load_pretrained
from jaxcnn.interop.torch_weights import TORCH_NAMES, from_torch, unwrapped
from jaxcnn.interop.trained import load_run
from jaxcnn.interop.weight_files import read_weights
from jaxcnn.models import MODELS, network, variants

Params = Mapping[str, Mapping[str, Any]]  # layer -> "kernel" and "bias"


def load_initial_params(config: TrainConfig) -> Callable[[Params], Params] | None:
    """Return the `initial_params` of `train_and_evaluate` for a config; None without `init_from`.

    The function takes each layer from the network that `init_from` names. The last layer starts
    from the random parameters if it has another number of classes, or with `new_head`; with
    `init_only`, all layers but those do. It prints where each layer comes from.

    Raises:
      UserError: when the function is called: the network cannot be read, or a layer does not fit.
    """
    source = configs.with_whole_paths(config).init_from  # as the run records it
    if source is None:
        return None

    def initialize(params: Params) -> Params:
        return merge(config, _load(source, config.model, params), params)

    return initialize


def merge(config: TrainConfig, trained: Params, initial: Params) -> Params:
    """Return initial parameters with those of a trained network where the config takes them.

    Args:
      config: config with `init_from`, `init_only` and `new_head`.
      trained: parameters of the trained network.
      initial: initial parameters of the run's network.

    Raises:
      UserError: a layer that is to be taken is missing or has another shape.
    """
    head = _head(config.model)
    taken, fresh, misfits = {}, [], []
    for layer, params in initial.items():
        ours, theirs = _shapes(params), _shapes(trained.get(layer, {}))
        if (config.init_only and layer not in config.init_only) or (
            config.new_head and layer == head
        ):
            fresh.append(layer)
        elif ours == theirs:
            taken[layer] = trained[layer]
        elif layer == head and theirs and _inputs(ours) == _inputs(theirs):
            fresh.append(f"{layer} ({theirs['bias'][0]} classes there, {ours['bias'][0]} here)")
        else:
            there = theirs or "missing"
            misfits.append(f"{layer} is {there} there and {ours} here")
    if misfits:
        raise UserError(
            f"`init_from` is {config.init_from}, which does not fit {config.model}: "
            f"{'; '.join(misfits)}; name the layers to take with `init_only`"
        )
    report.say(f"Parameters of {', '.join(taken)} are those of {config.init_from}.")
    if fresh:
        report.say(f"Parameters of {', '.join(fresh)} start from random values.")
    return {**initial, **taken}


def _head(model: str) -> str | None:
    return (
        network.head(variants.constructor(model)()) if variants.base_name(model) in MODELS else None
    )


def _shapes(params: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: list(np.shape(leaf)) for name, leaf in params.items()}


def _inputs(shapes: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Return the shapes without the last dimension, that of the features."""
    return {name: shape[:-1] for name, shape in shapes.items()}


def _load(source: str, model: str, initial: Params) -> Params:
    """Return the parameters that `init_from` names."""
    if os.path.isdir(source):
        return load_run(source).params
    if not os.path.exists(source) and source in cards():
        return load_pretrained(source).params
    entries = read_weights(Path(source))
    like = {layer: _shapes_only(params) for layer, params in initial.items()}
    names = TORCH_NAMES.get(model, {})
    head = _head(model)
    if head in names:  # a file may hold the head of another number of classes
        entries = unwrapped(entries, [f"{name}.bias" for name in names.values()])
        bias = entries.get(f"{names[head]}.bias")
        if isinstance(bias, np.ndarray) and bias.ndim == 1:
            kernel = like[head]["kernel"].shape
            like[head] = {
                "kernel": jax.ShapeDtypeStruct((*kernel[:-1], len(bias)), np.float32),
                "bias": jax.ShapeDtypeStruct((len(bias),), np.float32),
            }
    return from_torch(model, entries, like)


def _shapes_only(params: Mapping[str, Any]) -> dict[str, Any]:
    return {n: jax.ShapeDtypeStruct(np.shape(leaf), np.float32) for n, leaf in params.items()}
