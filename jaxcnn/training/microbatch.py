"""Microbatches whose layer outputs fit into a processor's cache.

On a CPU, layer outputs larger than the cache are written to memory and read back by the next layer
and the backward pass. Those of a microbatch stay in the cache. LeNet-5's step of 2,048 images takes
77 ms instead of 119 (docs/performance.md lists the others).

Networks with many parameters are slower in microbatches and stay whole.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, TypeVar

import jax

Tree = TypeVar("Tree")

# For a program on several cores, which synchronize after each operation.
MICROBATCH_BYTES = 6 * 2**20  # bytes of layer outputs: about the private caches
MIN_MICROBATCH = 32  # images; with fewer, matrix products are slow
MAX_PARAMS_BYTES = 2**25  # above this, adding up gradients costs more than the cache saves

# For a program on one core.
CORE_BYTES = 2**20  # bytes of layer outputs: about the core's private cache
CORE_IMAGES = 4
# Images if the parameters exceed CORE_BYTES, because their gradients are added up each time.
CORE_IMAGES_OF_MANY_PARAMS = 16


def choose_number(
    apply_fn: Callable[..., Any],
    params: Any,
    images: jax.Array | jax.ShapeDtypeStruct,
    devices: Set[jax.Device],
    *,
    on_one_core: bool = False,
) -> int:
    """Return the number of microbatches: 1 except on a single CPU device.

    Several devices keep the batch whole, because gradients are reduced after each microbatch.

    Args:
      apply_fn: `apply` of a module.
      params: parameters of the module.
      images: batch of images [batch, ...], or its shape and type.
      devices: devices that share the batch.
      on_one_core: whether the device is one core of several.
    """
    batch_size, min_images, max_bytes = images.shape[0], MIN_MICROBATCH, MICROBATCH_BYTES
    if on_one_core:
        has_many_params = _num_bytes(params) > CORE_BYTES
        min_images = CORE_IMAGES_OF_MANY_PARAMS if has_many_params else CORE_IMAGES
        max_bytes = CORE_BYTES
    if batch_size <= min_images or [device.platform for device in devices] != ["cpu"]:
        return 1
    if not has_few_parameters(params):
        return 1

    def outputs_of_layers(params: Any, images: jax.Array) -> Any:
        options = {"capture_intermediates": True, "mutable": ["intermediates"]}
        return apply_fn({"params": params}, images, train=False, **options)[1]

    outputs = jax.eval_shape(outputs_of_layers, params, images)
    largest = max(min_images, max_bytes * batch_size / _num_bytes(outputs))
    divisors = (n for n in range(1, batch_size + 1) if batch_size % n == 0)
    number = next(n for n in divisors if n * largest >= batch_size)
    return number if 2 * batch_size >= number * min_images else 1


def has_few_parameters(params: Any) -> bool:
    """Return whether adding up gradients costs less than a cache saves."""
    return _num_bytes(params) <= MAX_PARAMS_BYTES


def split(tree: Tree, number: int) -> Tree:
    """Reshape every array to [number, batch / number, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), tree)


def apply(function: Callable[[jax.Array], Any], images: jax.Array, number: int) -> jax.Array:
    """Return `function(images)`, computed one microbatch after the other."""
    if number == 1:
        return function(images)
    outputs = jax.lax.map(function, split(images, number))
    return outputs.reshape(-1, *outputs.shape[2:])


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
