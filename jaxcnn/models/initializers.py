"""Initial values: initializers by fan-in, and the pairs of them that a layer takes.

The fan-in of a unit is the number of its inputs, without the bias. The functions that end in
`_layer` return the keyword arguments `kernel_init` and `bias_init` of linen's layers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.initializers import Initializer


def linen_layer(fan_in: int) -> dict[str, Any]:
    """Return linen's defaults: a normal kernel of variance 1 / fan_in, cut at two deviations."""
    return {}


def paper_layer(fan_in: int) -> dict[str, Any]:
    """Return `uniform_by_fan_in`, of LeCun et al. 1998, for kernel and bias."""
    return _both(uniform_by_fan_in(fan_in))


def lecun_layer(fan_in: int) -> dict[str, Any]:
    """Return `lecun_uniform`, of "Efficient BackProp", for kernel and bias."""
    return _both(lecun_uniform(fan_in))


def torch_layer(fan_in: int) -> dict[str, Any]:
    """Return PyTorch's default: uniform up to 1 / sqrt(fan_in) either way, for kernel and bias.

    References:
      torch/nn/modules/conv.py and linear.py, `reset_parameters`.
    """
    return _both(_uniform(1 / np.sqrt(np.float32(fan_in))))


def glorot_layer(fan_in: int) -> dict[str, Any]:
    """Return the "normalized initialization": a kernel uniform up to sqrt(6 / (fan-in + fan-out)).

    References:
      Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural
      Networks", 2010, eq. 16.
    """
    return {"kernel_init": nn.initializers.glorot_uniform()}


def uniform_by_fan_in(fan_in: int | np.ndarray) -> Initializer:
    """Return an initializer, uniform between -2.4 / fan_in and 2.4 / fan_in.

    Args:
      fan_in: number of inputs of the weight's unit, without the bias; one number, or one for each
        entry of the parameter's last dimension.

    References:
      LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
      1998, appendix A.
    """
    return _uniform(2.4 / np.asarray(fan_in, np.float32))


def lecun_uniform(fan_in: int | np.ndarray) -> Initializer:
    """Return a uniform initializer of variance 1 / fan_in: up to sqrt(3 / fan_in) either way.

    Args:
      fan_in: number of inputs, as for `uniform_by_fan_in`.

    References:
      LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, section 4.6.
    """
    return _uniform(np.sqrt(3 / np.asarray(fan_in, np.float32)))


def _both(init: Initializer) -> dict[str, Any]:
    return {"kernel_init": init, "bias_init": init}


def _uniform(limit: np.ndarray) -> Initializer:
    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
