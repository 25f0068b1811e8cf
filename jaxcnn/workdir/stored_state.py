"""A state as a checkpoint holds it: its copy, its checksum and its shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxcnn.workdir.metadata import ForeignCheckpoint

State = TypeVar("State")


@jax.jit
def snapshot(state: State) -> tuple[State, jax.Array]:
    """Return a copy of the state, which the caller may donate, and its checksum."""
    return jax.tree.map(jnp.copy, state), checksum(state)


@jax.jit
def checksum(tree: Any) -> jax.Array:
    """Return a sum, modulo 2^32, of all words of a tree, each times an odd number from its place.

    It is computed on the device, for any placement. A single changed word always changes the sum.
    """
    total = jnp.uint32(0)
    for leaf in jax.tree.leaves(tree):
        words = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}")
        words = words.astype(jnp.uint32).ravel()
        places = jnp.arange(words.size, dtype=jnp.uint32)
        total = total * 31 + jnp.sum(words * (2 * places + 1), dtype=jnp.uint32)
    return total


def check_same_shapes(expected: Any, stored: Any, where: Path) -> None:
    """Check that a stored tree has the arrays of another one.

    Raises:
      ForeignCheckpoint: the trees differ; the message names an array.
    """
    ours, theirs = _shapes(expected), _shapes(stored)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise ForeignCheckpoint(
                f"{where} is of another model: {name} is {theirs.get(name, 'absent')} there, "
                f"{ours.get(name, 'absent')} here; choose another `workdir`"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
    }
