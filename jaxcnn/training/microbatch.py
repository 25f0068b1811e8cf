"""A batch in parts, whose layers' outputs stay in a processor's cache.

On a CPU a layer writes its outputs to memory where they are larger than the cache, and the next
layer, and the way back, read them from there. A part of the batch at a time stays inside. Times of
a training step on two cores, whole and in parts of so many images (README's are of another hour):

- `lenet5`, 512 images: 22.4 ms, 18 to 21 in parts of 128; 2,048 images: 119 ms, 77;
- `lenet5-modern`, 512 images: 194 ms, 132 in parts of 64;
- `cuda-convnet-18pct`, 128 images: 138 ms, 118 in parts of 32;
- `alexnet-32`, 128 images, when it did not normalize responses: 257 ms, 222 in parts of 32, 245 of
  16; inference on 1,000 at 1,108 images/s, at 1,530 in parts of 25, which is what it takes, and at
  1,747 in parts of 50.

Not where parameters are many: AlexNet's step of 64 images of 96x96 took 640 ms in two parts,
466 whole.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, TypeVar

import jax

Tree = TypeVar("Tree")

MICROBATCH_BYTES = 6 * 2**20  # of layers' outputs: about the cache that a core has to itself
MIN_MICROBATCH = 32  # images, below which the products of matrices become slow
MAX_PARAMS_BYTES = 2**25  # above, adding up the parts' gradients costs more than it gains


def choose_number(
    apply_fn: Callable[..., Any], params: Any, images: jax.Array, devices: Set[jax.Device]
) -> int:
    """Into how many equal parts a batch should be cut: 1 anywhere but on a single CPU device.

    Several devices keep it whole: their shares are smaller, and it is reduced once.

    Args:
      apply_fn: a module's `apply`.
      params: of the module.
      images: [batch, ...], or its shape and type.
      devices: all that share the batch.
    """
    batch_size = len(images)
    if batch_size <= MIN_MICROBATCH or [device.platform for device in devices] != ["cpu"]:
        return 1
    if _num_bytes(params) > MAX_PARAMS_BYTES:
        return 1

    def outputs_of_layers(params: Any, images: jax.Array) -> Any:
        options = {"capture_intermediates": True, "mutable": ["intermediates"]}
        return apply_fn({"params": params}, images, train=False, **options)[1]

    outputs = jax.eval_shape(outputs_of_layers, params, images)
    largest = max(MIN_MICROBATCH, MICROBATCH_BYTES * batch_size / _num_bytes(outputs))
    divisors = (n for n in range(1, batch_size + 1) if batch_size % n == 0)
    number = next(n for n in divisors if n * largest >= batch_size)
    return number if 2 * batch_size >= number * MIN_MICROBATCH else 1


def split(tree: Tree, number: int) -> Tree:
    """Every array as [number, batch / number, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), tree)


def apply(function: Callable[[jax.Array], Any], images: jax.Array, number: int) -> jax.Array:
    """`function(images)`, part by part."""
    if number == 1:
        return function(images)
    outputs = jax.lax.map(function, split(images, number))
    return outputs.reshape(-1, *outputs.shape[2:])


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
