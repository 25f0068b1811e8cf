"""A CPU device for each core, which computes a network for its own images (`training/step.py`).

XLA splits each operation of one CPU device over all cores, so a layer reads what another core has
written. `docs/performance.md` has the times.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from jaxcnn.distributed import mesh
from jaxcnn.models.variants import constructor, image_shape
from jaxcnn.training import microbatch

NUM_CORES = 2  # the only number for which a device for each core was measured as faster

# Numbers of an array that is added up together with others, and of one that may be concatenated.
MAX_FLAT = 2**16
MAX_CONCATENATED = 2**10


def use_cores(network: str, batch_size: int, *, train: bool = True) -> None:
    """Make JAX see a CPU device for each of two cores, if training or evaluation is faster so.

    Call it before JAX looks for devices; later it does nothing. JAX_NUM_CPU_DEVICES or its flag in
    XLA_FLAGS takes precedence, and under JAX_DISABLE_JIT one device is faster. Accelerators stay as
    they are.

    Args:
      network: name in MODELS, or of a variant.
      batch_size: number of images in a batch.
      train: whether the network is trained, not only evaluated.
    """
    if (
        jax.config.values["jax_num_cpu_devices"] != -1  # set by the user
        or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
        or jax.config.values["jax_disable_jit"]  # a core's microbatches are thousands of operations
        or not are_faster(network, batch_size, train=train)
    ):
        return
    try:
        jax.config.update("jax_num_cpu_devices", NUM_CORES)
    except RuntimeError:  # JAX has looked for devices
        return


def are_faster(network: str, batch_size: int, *, train: bool = True) -> bool:
    """Return whether a device for each core of this machine is faster than one device.

    In evaluation, a batch is filled up to a multiple of the devices.
    """
    if _num_cores() != NUM_CORES or (train and batch_size % NUM_CORES):
        return False
    model = constructor(network)()
    image = jax.ShapeDtypeStruct((1, *image_shape(network)), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(model.init, key, image)["params"]
    smallest = microbatch.smallest_share(model.apply, params, image, train=train)
    if batch_size // NUM_CORES < smallest:
        return False
    if train:
        return suits(model.apply, params, image)
    return microbatch.has_few_parameters(params)


def are_devices(sharding: NamedSharding) -> bool:
    """Return whether images are shared by several CPU devices of a single process."""
    return mesh.are_cores(sharding.device_set) and sharding.mesh.shape.get("model", 1) == 1


def by_core(
    function: Callable[..., Any], sharding: NamedSharding, out: PartitionSpec
) -> Callable[..., Any]:
    """Return `function(state, images or batch, *others)`, computed by each core for its images.

    The images of a core stay in its cache from layer to layer.

    Args:
      function: function of the images of one core.
      sharding: how the cores share the images.
      out: how the results of all cores are shared.
    """
    whole, split = PartitionSpec(), sharding.spec

    def call(state: Any, images: Any, *others: Any) -> Any:
        return jax.shard_map(
            function,
            mesh=sharding.mesh,
            in_specs=(whole, split, *(whole for _ in others)),
            out_specs=out,
            check_vma=False,
        )(state, images, *others)

    return call


def add_up(tree: Any, axes: tuple[str, ...]) -> Any:
    """Return the sums of arrays over the axes of a `shard_map`.

    All but large arrays are reduced at once: LeNet-5's step of 64 images takes 1.0 ms on two CPU
    devices, and 1.7 ms with a reduction for each array.
    """
    leaves, treedef = jax.tree.flatten(tree)
    sums = {i: jax.lax.psum(leaf, axes) for i, leaf in enumerate(leaves) if leaf.size > MAX_FLAT}
    small = {i: leaf for i, leaf in enumerate(leaves) if leaf.size <= MAX_CONCATENATED}
    others = {i: leaf for i, leaf in enumerate(leaves) if i not in sums and i not in small}
    with jax.numpy_dtype_promotion("standard"):  # the counts of a batch are exact in float32
        flat, unravel = ravel_pytree(small)
        parts = [flat, *(leaf.ravel() for leaf in others.values())]
        starts = [0, *itertools.accumulate(len(part) for part in parts)]
        # XLA writes a single loop for a concatenation. Its masked reads, beyond the end of each
        # array, may take 0.3 us each: mlp-1000's step of 64 images took 200 ms instead of 1.2.
        # Without the barrier, the first update would be such a loop.
        flat = jax.lax.optimization_barrier(jnp.zeros(starts[-1], flat.dtype))
        for start, part in zip(starts, parts, strict=False):
            flat = jax.lax.dynamic_update_slice(flat, part.astype(flat.dtype), (start,))
        flat, *parts = jnp.split(jax.lax.psum(flat, axes), starts[1:-1])
        sums |= unravel(flat)
    for (i, leaf), part in zip(others.items(), parts, strict=True):
        sums[i] = part.reshape(leaf.shape).astype(leaf.dtype)
    return jax.tree.unflatten(treedef, [sums[i] for i in range(len(leaves))])


def microbatch_size(
    apply_fn: Callable[..., Any],
    params: Any,
    images: Any,
    sharding: NamedSharding,
    *,
    train: bool,
) -> int:
    """Return `microbatch.choose_size` for the images of one core."""
    share = jax.ShapeDtypeStruct(
        (images.shape[0] // sharding.mesh.size, *images.shape[1:]), images.dtype
    )
    return microbatch.choose_size(
        apply_fn, params, share, {jax.devices("cpu")[0]}, train=train, on_one_core=True
    )


def forward(
    apply: Callable[..., Any], variables: Any, images: jax.Array, sharding: NamedSharding
) -> jax.Array:
    """Return `apply(variables, images)`, in microbatches that suit the devices.

    Args:
      apply: `apply` of a network, for evaluation.
      variables: variables of the network; its parameters are `params`.
      images: preprocessed images.
      sharding: how the devices share the images.
    """
    params = variables["params"]
    images = jax.lax.with_sharding_constraint(images, sharding)
    if are_devices(sharding) and microbatch.has_few_parameters(params):
        size = microbatch_size(apply, params, images, sharding, train=False)
        of_core = functools.partial(microbatch.apply, apply, size=size)
        return by_core(of_core, sharding, sharding.spec)(variables, images)
    size = microbatch.choose_size(apply, params, images, sharding.device_set, train=False)
    return microbatch.apply(apply, variables, images, size=size)


def suits(apply_fn: Callable[..., Any], params: Any, images: Any) -> bool:
    """Return whether each core may compute gradients alone, and exchange them in little time.

    Not with dropout, which has the same masks on any number of devices.

    Args:
      apply_fn: `apply` of a network.
      params: its parameters, or their shapes and types.
      images: a batch of images, or its shape and type.
    """
    if not microbatch.has_few_parameters(params):
        return False
    try:
        apply = functools.partial(apply_fn, train=True)
        jax.eval_shape(apply, {"params": params}, images)  # without a key
    except InvalidRngError:
        return False
    return True


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
