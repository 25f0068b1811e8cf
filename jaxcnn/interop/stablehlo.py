"""Write trained networks as StableHLO programs, which `jax.export` loads without this package.

The program contains everything from raw images to probabilities, for any batch size, and runs on
CPUs, CUDA GPUs and TPUs. JAX loads a program for at least six months after the version that wrote
it, see https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.data.preprocess import evaluation_preprocess
from jaxcnn.errors import UserError
from jaxcnn.interop.trained import Input, Output, Trained, inference_state, input_shape
from jaxcnn.training.step import predict_log_probs

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(
    trained: Trained,
    *,
    input: Input = "uint8",
    output: Output = "log-probs",
    views: int = 1,
    with_params: bool = True,
) -> bytes:
    """Return a trained network as a program for `jax.export.deserialize`.

    The program is a function of `images` [batch, height, width, channels], or of `(params,
    images)`; it returns [batch, classes] in float32.

    Args:
      trained: the network.
      input: type of the images, see `trained.Input`.
      output: values that the program returns, see `trained.Output`.
      views: views of each image to average over, 1, 2, 5 or 10.
      with_params: whether the parameters are part of the program; else they are an argument, the
        dict that `flat_params` returns.

    Raises:
      UserError: `flatbuffers` is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError(
            "a .stablehlo file needs the package flatbuffers, which is not installed; run: "
            "pip install 'jaxcnn[stablehlo]'"
        )
    config = trained.config
    preprocess = evaluation_preprocess(config.transforms, config.pixel_mean, config.pixel_std)

    def answer(params: Any, images: jax.Array) -> jax.Array:
        state = inference_state(trained, unflatten_dict(params, sep="."))
        if input != "preprocessed":
            images = preprocess(images, views=views)
        log_probs = predict_log_probs(state, images, views)
        return jnp.exp(log_probs) if output == "probabilities" else log_probs

    params = flat_params(trained)
    raw = trained.info.image_shape
    shape = input_shape(config, trained.info) if input == "preprocessed" else raw
    (batch,) = jax.export.symbolic_shape("batch")
    dtype = np.uint8 if input == "uint8" else np.float32
    images = jax.ShapeDtypeStruct((batch, *shape), dtype)
    with _without_source_paths():
        if with_params:
            program = jax.jit(lambda images: answer(params, images))
            exported = jax.export.export(program, platforms=PLATFORMS)(images)
        else:
            exported = jax.export.export(jax.jit(answer), platforms=PLATFORMS)(params, images)
    return bytes(exported.serialize())


def flat_params(trained: Trained) -> dict[str, np.ndarray]:
    """Return the parameters as a flat dict, such as "C1.kernel" -> array."""
    return {
        name: np.ascontiguousarray(array)
        for name, array in flatten_dict(trained.params, sep=".").items()
    }


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """Keep the paths of Python files on this machine out of exported programs."""
    limit = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
