"""Microbatches whose layer outputs fit into a processor's cache.

On a CPU, layer outputs larger than the cache are written to memory and read back by the next layer
and the backward pass. Those of a microbatch stay in the cache. LeNet-5's step of 2,048 images takes
77 ms instead of 119 (docs/performance.md lists the others).

Training steps of networks with many parameters are slower in microbatches and stay whole. Inference
of such networks is computed in microbatches up to the first large dense layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core.tracers import current_trace

from jaxcnn.layers.cpu_convolution.lowering import MAX_BAND_CHANNELS

Tree = TypeVar("Tree")

# For a program on several cores, which synchronize after each operation.
MICROBATCH_BYTES = 6 * 2**20  # bytes of layer outputs: about the private caches
MIN_MICROBATCH = 32  # images; with fewer, matrix products are slow
# Above this, adding up gradients costs more than the cache saves, and the weights of a layer are
# read from memory for each microbatch.
MAX_PARAMS_BYTES = 2**25

# Images in inference of networks with more parameters. With more images, AlexNet's program needs
# over 32 MiB of temporary memory, which glibc's malloc returns to the system after each call. A
# batch of 8 images takes 41 ms whole and 31 ms in microbatches of 2.
MICROBATCH_OF_LARGE = 2

# Layers of few channels are computed in vectors of this many images. The rest of a batch that does
# not fill a vector takes as long as a vector, and in some loops several times as long.
LANES = 16
MAX_FILL = 3  # with fewer images than a third of a vector, they alone are faster

# For a program on one core.
CORE_BYTES = 2**20  # bytes of layer outputs: about the core's private cache; half in inference
CORE_IMAGES = 4
# Images if the parameters exceed CORE_BYTES, because their gradients are added up each time.
CORE_IMAGES_OF_MANY_PARAMS = 16


def choose_size(
    apply_fn: Callable[..., Any],
    params: Any,
    images: jax.Array | jax.ShapeDtypeStruct,
    devices: Set[jax.Device],
    *,
    train: bool,
    on_one_core: bool = False,
) -> int:
    """Return the number of images of a microbatch; see `split` for the rest.

    It is the whole batch except on a single CPU device: several devices would reduce gradients
    after each microbatch. A size above that of the batch is one microbatch, which is filled up.

    Args:
      apply_fn: `apply` of a module.
      params: parameters of the module.
      images: batch of images [batch, ...], or its shape and type.
      devices: devices that share the batch.
      train: whether gradients are computed; those of many parameters are not added up.
      on_one_core: whether the device is one core of several.
    """
    batch_size = images.shape[0]
    has_few = has_few_parameters(params)
    if [device.platform for device in devices] != ["cpu"] or (train and not has_few):
        return batch_size
    min_images, max_bytes = MIN_MICROBATCH, MICROBATCH_BYTES
    if not has_few:
        min_images, max_bytes = MICROBATCH_OF_LARGE, 0
    outputs = _outputs_of_layers(apply_fn, params, images)
    if on_one_core:
        has_many = _num_bytes(params) > CORE_BYTES
        min_images = CORE_IMAGES_OF_MANY_PARAMS if has_many else CORE_IMAGES
        min_images = 2 * LANES if _are_narrow(outputs) else min_images
        max_bytes = CORE_BYTES if train else CORE_BYTES // 2
    lanes = LANES if _are_narrow(outputs) else 1
    largest = int(max(min_images, lanes, max_bytes / _num_bytes(outputs)))
    largest -= largest % lanes
    batch_size -= num_alone(batch_size, lanes)

    def filled(size: int) -> int:
        return -(-batch_size // size) * size

    if batch_size <= largest:
        return filled(lanes) if filled(lanes) <= MAX_FILL * batch_size else batch_size
    return min(range(largest, largest // 2, -lanes), key=filled)


def smallest_share(
    apply_fn: Callable[..., Any],
    params: Any,
    images: jax.Array | jax.ShapeDtypeStruct,
    *,
    train: bool,
) -> float:
    """Return the fewest images that a core alone computes faster than its part of each operation.

    It is infinite without convolutions.

    Args:
      apply_fn: `apply` of a module.
      params: parameters of the module, or their shapes and types.
      images: images [images, ...], or their shape and type.
      train: whether gradients are computed, too.
    """
    outputs = _outputs_of_layers(apply_fn, params, images)
    if all(len(leaf.shape) != 4 for leaf in jax.tree.leaves(outputs)):
        return math.inf
    if _are_narrow(outputs):
        return 2 * LANES if train else LANES
    if _num_bytes(params) > CORE_BYTES:
        return CORE_IMAGES_OF_MANY_PARAMS if train else CORE_IMAGES
    return 1


def has_few_parameters(params: Any) -> bool:
    """Return whether adding up gradients costs less than a cache saves."""
    return _num_bytes(params) <= MAX_PARAMS_BYTES


def num_alone(batch_size: int, size: int) -> int:
    """Return 1 if one image is left over and faster alone than filled up, otherwise 0.

    A microbatch of two is filled up, because it takes little longer than one image.
    """
    return int(batch_size > size > 2 and batch_size % size == 1)


def split(tree: Tree, size: int) -> tuple[Tree, Tree]:
    """Split a batch into microbatches.

    Args:
      tree: arrays of [batch, ...].
      size: images of a microbatch.

    Returns:
      The arrays as [microbatches, size, ...], of which the last is filled up with the first rows.
      The row that is left over and computed alone, as [1, ...], or [0, ...].
    """
    batch_size = len(jax.tree.leaves(tree)[0])
    num_split = batch_size - num_alone(batch_size, size)
    number = -(-num_split // size)

    def split_leaf(leaf: jax.Array) -> jax.Array:
        filled = jnp.resize(leaf[:num_split], (number * size, *leaf.shape[1:]))
        return filled.reshape(number, size, *leaf.shape[1:])

    return jax.tree.map(split_leaf, tree), jax.tree.map(lambda leaf: leaf[num_split:], tree)


def split_step(batch: Tree, key: jax.Array, size: int) -> tuple[Any, list[tuple[Tree, jax.Array]]]:
    """Split a training batch, and give each microbatch a random key of its own.

    Args:
      batch: arrays of [batch, ...].
      key: random key of the step.
      size: images of a microbatch.

    Returns:
      The arrays as [microbatches, size, ...] and the keys as [microbatches].
      The image that is left over, with its key, or nothing.
    """
    parts, alone = split(batch, size)
    number, num_alone = (len(jax.tree.leaves(tree)[0]) for tree in (parts, alone))
    keys = jax.random.split(key, number + num_alone)
    return (parts, keys[:number]), [(alone, keys[number])] if num_alone else []


def apply(
    function: Callable[..., Any], variables: Any, images: jax.Array, *, size: int
) -> jax.Array:
    """Return `function(variables, images)`, computed one microbatch after the other.

    From a dense layer with more than MAX_PARAMS_BYTES of weights on, the whole batch is computed at
    once, because such weights would be read from memory for each microbatch.

    Args:
      function: `apply` of a module, whose results for each image depend on that image only.
      variables: variables of the module.
      images: images [batch, ...].
      size: images of a microbatch.
    """
    if size == images.shape[0]:
        return function(variables, images)
    has_large_layer = False

    def of_part(part: jax.Array) -> jax.Array:
        """Return the input of the large layer, or the outputs without such a layer."""
        inputs: list[jax.Array] = []

        def note(x: jax.Array) -> jax.Array:
            inputs.append(x)
            return x

        with _replace_input_of_large_layer(note):
            outputs = function(variables, part)  # what follows the layer is dead code
        nonlocal has_large_layer
        has_large_layer = bool(inputs) and len(inputs[0]) == len(part)
        return inputs[0] if has_large_layer else outputs

    parts, alone = split(images, size)
    results = jax.lax.map(of_part, parts)
    results = results.reshape(-1, *results.shape[2:])
    if len(alone):
        results = jnp.concatenate([results, of_part(alone)])
    results = results[: len(images)]
    if not has_large_layer:
        return results

    def computed(x: jax.Array) -> jax.Array:
        # Another shape is no input of the whole batch, but for example a parameter.
        return results if x.shape == results.shape else x

    with _replace_input_of_large_layer(computed):  # what precedes the layer is dead code
        return function(variables, images)


def _replace_input_of_large_layer(
    replace: Callable[[jax.Array], jax.Array],
) -> AbstractContextManager[None]:
    """Replace the input of the first large dense layer of the module that is called.

    Layers within `nn.remat`, `nn.jit` or `nn.scan` are traced separately, so that their inputs
    cannot be read outside.
    """
    trace = current_trace()
    is_replaced = False

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal is_replaced
        layer = context.module
        if isinstance(layer, nn.Dense) and args and not is_replaced and current_trace() == trace:
            if layer.features * args[0].shape[-1] * 4 > MAX_PARAMS_BYTES:
                is_replaced = True
                args = (replace(args[0]), *args[1:])
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def _outputs_of_layers(apply_fn: Callable[..., Any], params: Any, images: Any) -> Any:
    """Return the shapes and types of the outputs of all layers, for one image."""

    def forward(params: Any, images: jax.Array) -> Any:
        options = {"capture_intermediates": True, "mutable": ["intermediates"], "train": False}
        return apply_fn({"params": params}, images, **options)[1]

    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    return jax.eval_shape(forward, params, image)


def _are_narrow(outputs: Any) -> bool:
    """Return whether some layers have few channels, and are therefore stored batch-minor."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(outputs)]
    return any(len(shape) == 4 and shape[3] <= MAX_BAND_CHANNELS for shape in shapes)


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
