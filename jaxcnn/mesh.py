"""Where arrays live: all devices along one axis, the same code for one device and many."""

from __future__ import annotations

from typing import TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcnn.errors import UserError

Tree = TypeVar("Tree")


def data_mesh() -> Mesh:
    """All devices, along one axis called `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Each device holds its share of the first dimension."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """The arrays of `tree`, on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


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
            f"--batch-size {batch_size} does not divide over {mesh.size} devices; "
            f"the nearest that does is {nearest}"
        )
