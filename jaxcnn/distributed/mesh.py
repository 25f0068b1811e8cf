"""Where arrays live: all devices on one mesh, the same code for one device and many."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcnn.errors import UserError

Tree = TypeVar("Tree")


def device_mesh(model_axis: int = 1) -> Mesh:
    """All devices along two axes, `data` and `model`; the second has `model_axis` of them.

    Raises:
      UserError: the devices do not divide by `model_axis`.
    """
    num_devices = jax.device_count()
    if num_devices % model_axis:
        raise UserError(
            f"--model-axis {model_axis} does not divide the {num_devices} devices there are"
        )
    shape = num_devices // model_axis, model_axis
    return jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Each device, along both axes, holds its share of the first dimension."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def state_sharding(state: Any, mesh: Mesh, specs: Mapping[str, PartitionSpec]) -> Any:
    """Return how a state lies on the mesh: replicated, except the parameters in `specs`.

    Args:
      state: tree of arrays or their shapes. Whatever belongs to a parameter, such as its momentum,
        lies as the parameter does.
      mesh: a mesh of `device_mesh`.
      specs: parameter, as "fc6/kernel" -> its partition over the axis `model`.

    Raises:
      UserError: the axis has several devices, and no parameter is split evenly over them.
    """
    num_devices = mesh.shape["model"]
    shares: list[int] = []

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        spec = specs.get(jax.tree_util.keystr(path[-2:], simple=True, separator="/"))
        if spec is None:
            return replicated(mesh)
        shares.append(leaf.shape[spec.index("model")] % num_devices)
        return NamedSharding(mesh, spec)

    shardings = jax.tree_util.tree_map_with_path(sharding, state)
    if num_devices > 1 and (not shares or any(shares)):
        raise UserError(
            f"--model-axis {num_devices}: this network has no fc6 and fc7, as AlexNet has, "
            f"whose units divide by {num_devices}"
        )
    return shardings


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """The arrays of `tree`, on every device of the mesh; every process has the same."""
    if jax.process_count() == 1:
        return jax.device_put(tree, replicated(mesh))

    def place(leaf: Any) -> jax.Array:
        # device_put knows a process's own devices only, and would compare what processes have.
        return jax.make_array_from_callback(leaf.shape, replicated(mesh), lambda _: leaf)

    return jax.tree.map(place, tree)


def jit(function: Callable[..., Any], mesh: Mesh, out_shardings: Any = None, **options: Any) -> Any:
    """`jax.jit`, with results on every device of the mesh where nothing else is said."""

    @functools.wraps(getattr(function, "func", function))  # of a partial: it names the program
    def on_mesh(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for layers that ask
            return function(*args)

    return jax.jit(on_mesh, out_shardings=out_shardings or replicated(mesh), **options)


def compile_for(function: Any, *args: Any) -> Callable[..., Any]:
    """Compile a jitted function for arguments like these; as it is under `jax_disable_jit`."""
    if jax.config.values["jax_disable_jit"]:
        return function
    return function.lower(*args).compile()


def shardings(tree: Any) -> Any:
    """How each array of `tree` lies on the devices."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def process_share(batch_size: int) -> slice:
    """The part of a batch that this process reads: the processes' parts follow each other."""
    size = batch_size // jax.process_count()
    return slice(jax.process_index() * size, (jax.process_index() + 1) * size)


def place_shares(tree: Tree, mesh: Mesh) -> Tree:
    """The batch whose `process_share` each process has in `tree`, over the devices."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), tree)


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The next batch size that divides over the devices."""
    return -(-batch_size // mesh.size) * mesh.size


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Checks that a batch divides over the devices.

    Raises:
      UserError: it does not; the message names the nearest that does.
    """
    if batch_size % mesh.size:
        nearest = max(1, round(batch_size / mesh.size)) * mesh.size
        raise UserError(
            f"--batch-size {batch_size} does not divide over {mesh.size} devices (of GPUs, "
            "CUDA_VISIBLE_DEVICES=0 leaves one; JAX_PLATFORMS=cpu is the CPU); "
            f"the nearest that does is {nearest}"
        )
