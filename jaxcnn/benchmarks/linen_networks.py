"""The networks in plain Flax: `nn.Conv` and linen's own pools, without a layer of jaxcnn."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class LeNet5(nn.Module):
    """The notebook's network, 61,706 parameters."""

    num_classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Return the logits of each image."""
        conv, dense = partial(nn.Conv, dtype=self.dtype), partial(nn.Dense, dtype=self.dtype)
        x = nn.sigmoid(conv(6, (5, 5), padding="SAME", name="C1")(images))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.sigmoid(conv(16, (5, 5), padding="VALID", name="C3")(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.sigmoid(conv(120, (5, 5), padding="VALID", name="C5")(x))
        x = x.reshape(len(x), -1)
        x = nn.sigmoid(dense(84, name="F6")(x))
        return dense(self.num_classes, name="output")(x)


class AlexNet(nn.Module):
    """The one tower of 2014, 61,100,840 parameters; at 224x224 its averaging changes nothing."""

    num_classes: int = 1000
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Return the logits of each image."""
        conv, dense = partial(nn.Conv, dtype=self.dtype), partial(nn.Dense, dtype=self.dtype)
        x = nn.relu(conv(64, (11, 11), strides=4, padding=2, name="conv1")(images))
        x = nn.max_pool(x, (3, 3), (2, 2))
        x = nn.relu(conv(192, (5, 5), padding=2, name="conv2")(x))
        x = nn.max_pool(x, (3, 3), (2, 2))
        x = nn.relu(conv(384, (3, 3), padding=1, name="conv3")(x))
        x = nn.relu(conv(256, (3, 3), padding=1, name="conv4")(x))
        x = nn.relu(conv(256, (3, 3), padding=1, name="conv5")(x))
        x = nn.max_pool(x, (3, 3), (2, 2))
        x = x.reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = nn.Dropout(0.5, deterministic=not train)(x)
            x = nn.relu(dense(4096, name=name)(x))
        return dense(self.num_classes, name="fc8")(x)


class AlexNet2012(nn.Module):
    """The network of 2012, 60,965,224 parameters."""

    num_classes: int = 1000
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Return the logits of each image."""
        conv, dense = partial(nn.Conv, dtype=self.dtype), partial(nn.Dense, dtype=self.dtype)
        pads = ((0, 3), (0, 3))
        x = nn.relu(conv(96, (11, 11), strides=4, padding=pads, name="conv1")(images))
        x = nn.max_pool(_lrn(x), (3, 3), (2, 2))
        x = nn.relu(conv(256, (5, 5), padding=2, feature_group_count=2, name="conv2")(x))
        x = nn.max_pool(_lrn(x), (3, 3), (2, 2))
        x = nn.relu(conv(384, (3, 3), padding=1, name="conv3")(x))
        x = nn.relu(conv(384, (3, 3), padding=1, feature_group_count=2, name="conv4")(x))
        x = nn.relu(conv(256, (3, 3), padding=1, feature_group_count=2, name="conv5")(x))
        x = nn.max_pool(x, (3, 3), (2, 2))
        x = x.reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(dense(4096, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return dense(self.num_classes, name="fc8")(x)


def _lrn(x: jax.Array) -> jax.Array:
    ones = (1, 1, 1, 1)
    sums = jax.lax.reduce_window(
        x * x, np.zeros((), x.dtype), jax.lax.add, (1, 1, 1, 5), ones, "SAME"
    )
    return x / (2 + 1e-4 * sums) ** 0.75


NETWORKS = {"lenet5": LeNet5, "alexnet": AlexNet, "alexnet-2012": AlexNet2012}
