"""A trained network with everything that is needed to use it, from a run's folder."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxcnn import config as configs
from jaxcnn import report
from jaxcnn.config import TrainConfig
from jaxcnn.data.open import open_dataset
from jaxcnn.data.preprocess import evaluation_preprocess
from jaxcnn.distributed import mesh
from jaxcnn.distributed.compilation_cache import use_compilation_cache
from jaxcnn.errors import UserError
from jaxcnn.models import network, variants
from jaxcnn.optim.optimizers import make_optimizer
from jaxcnn.paths import local_path
from jaxcnn.training.step import TrainState, create_state, cross_entropy
from jaxcnn.workdir import dataset_info
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.dataset_info import DatasetInfo

Input = Literal["uint8", "float32", "preprocessed"]
"""Images that an exported network reads: raw pixels as uint8, or as float32 in [0, 255], or float32
images that are preprocessed already."""

Output = Literal["log-probs", "probabilities"]
"""What an exported network returns for each class."""


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      config: config of the run.
      info: description of the run's dataset.
      model: the network.
      params: its parameters, on the host; the moving average, if the run has one.
      step: step of the checkpoint.
      name: name for messages: the run's folder, or the name of pretrained weights.
    """

    config: TrainConfig
    info: DatasetInfo
    model: nn.Module
    params: Any
    step: int
    name: str


def load_run(
    workdir: str | os.PathLike[str],
    *,
    step: int | Literal["best"] | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    info: DatasetInfo | None = None,
    model: nn.Module | None = None,
) -> Trained:
    """Load the network of a run; its dataset is only opened if the run does not describe it.

    Args:
      workdir: folder of the run.
      step: step of the checkpoint, or "best" for the best test accuracy; by default the latest.
      data_dir: directory of prepared datasets; by default as in the run.
      manual_dir: directory of original files; by default as in the run.
      info: description of the dataset for a run of an earlier version, which does not record it.
      model: network, if the run was given one.

    Raises:
      UserError: the folder holds no run or no such checkpoint, or the run is of an earlier version
        and its data cannot be read.
      RunError: the checkpoint is corrupt.
    """
    from jaxcnn.workdir.checkpoints import Checkpoints  # late: pretrained weights need no Orbax

    workdir = local_path(workdir, "the run")
    config = workdirs.read_config(workdir, data_dir=data_dir, manual_dir=manual_dir)
    if config.compilation_cache:
        use_compilation_cache()  # before the program that computes the checkpoint's checksum
    with Checkpoints(workdir / "checkpoints", config) as checkpoints:
        checkpoints.resolve_step(step)  # before the data is opened
        if recorded := dataset_info.read(workdir):
            info = recorded
        elif info:
            names = ", ".join(info.class_names)
            report.say(f"{workdir} does not record its classes; taking them to be {names}")
        else:
            info = _describe_dataset(config)
        model = make_model(config, info, model)
        state, _ = checkpoints.restore(_abstract_state(config, info, model), step)
    params, step = jax.device_get((state.eval_params, state.step))
    return Trained(config, info, model, params, int(step), str(workdir))


def make_model(config: TrainConfig, info: DatasetInfo, model: nn.Module | None = None) -> nn.Module:
    """Return the network of a config for the classes of a dataset."""
    model = model or variants.constructor(config.model)(len(info.class_names))
    return model if config.dtype == "float32" else model.clone(dtype=jnp.dtype(config.dtype))


def input_shape(config: TrainConfig, info: DatasetInfo) -> tuple[int, ...]:
    """Return the shape of an image as the network sees it, after preprocessing.

    Raises:
      UserError: the images do not fit the preprocessing.
    """
    preprocess = evaluation_preprocess(config.transforms, config.pixel_mean, config.pixel_std)
    raw = jax.ShapeDtypeStruct((1, *info.image_shape), np.uint8)
    try:
        return jax.eval_shape(preprocess, raw).shape[1:]
    except (TypeError, ValueError) as error:
        raise UserError(f"images of {info.image_shape} do not fit the run: {error}") from error


def check_views(trained: Trained, views: int) -> None:
    """Check that an image of the dataset has that many views.

    Raises:
      UserError: the views cannot be cut, or the images do not fit the preprocessing.
    """
    config = trained.config
    preprocess = evaluation_preprocess(config.transforms, config.pixel_mean, config.pixel_std)
    raw = jax.ShapeDtypeStruct((1, *trained.info.image_shape), np.uint8)
    try:
        jax.eval_shape(functools.partial(preprocess, views=views), raw)
    except ValueError as error:
        raise UserError(f"`views` is {views}: {error}") from error


def inference_state(trained: Trained, params: Any) -> TrainState:
    """Return a training state without an optimizer, for `predict_log_probs` and `probes`.

    Args:
      trained: the network.
      params: its parameters, where they are needed.
    """
    loss_fn = network.loss_fn(trained.model) or cross_entropy
    return TrainState(
        step=np.int32(trained.step),
        apply_fn=trained.model.apply,
        params=params,
        tx=optax.identity(),
        opt_state=optax.EmptyState(),
        loss_fn=loss_fn,
        eval_loss_fn=loss_fn,
    )


def make_card(trained: Trained, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the card of a trained network, as JSON types: its result, config and dataset.

    Args:
      trained: the network.
      result: content of the run's `result.json`, used if it is that of the network's step.
    """
    config = dataclasses.replace(trained.config, workdir=None, data_dir=None, manual_dir=None)
    measured = result if result and result["steps"] == trained.step else {"steps": trained.step}
    described = {
        "config": configs.to_dict(config),
        "dataset_info": dataclasses.asdict(trained.info),
    }
    return {"preset": config.preset, "model": config.model, **measured, **described}


def _describe_dataset(config: TrainConfig) -> DatasetInfo:
    return dataset_info.describe(
        open_dataset(
            config.dataset,
            **configs.dataset_options(config),
        )
    )


def _abstract_state(config: TrainConfig, info: DatasetInfo, model: nn.Module) -> TrainState:
    """Return the shapes of a run's training state, on every device."""
    schedule = optax.constant_schedule(config.optimizer.learning_rate)  # not part of the state
    tx = make_optimizer(
        config.optimizer, schedule, ema_decay=config.ema_decay, frozen=config.freeze
    ).tx
    create = functools.partial(create_state, model, tx, input_shape(config, info))
    replicated = mesh.replicated(mesh.device_mesh())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated),
        jax.eval_shape(lambda: create(jax.random.key(0))),  # outside, a key compiles a program
    )
