import re

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxcnn import mesh
from jaxcnn.errors import UserError


def test_a_batch_is_shared_out_and_a_state_is_everywhere():
    both = mesh.data_mesh()
    assert both.size == len(jax.devices()) == 2
    rows = jnp.arange(8).reshape(4, 2)
    batch = jax.device_put(rows, mesh.batch_sharding(both))
    state = mesh.replicate({"w": rows}, both)["w"]
    for i, device in enumerate(both.devices):
        shards = [a.addressable_shards[i] for a in (batch, state)]
        assert [shard.device for shard in shards] == [device, device]
        chex.assert_trees_all_equal(shards[0].data, rows[2 * i : 2 * i + 2])
        chex.assert_trees_all_equal(shards[1].data, rows)


@pytest.mark.parametrize(("batch_size", "expected"), [(1, 2), (2, 2), (999, 1000), (1000, 1000)])
def test_round_up(batch_size, expected):
    assert mesh.round_up(batch_size, mesh.data_mesh()) == expected


def test_a_batch_that_divides_is_accepted():
    mesh.check_batch_size(64, mesh.data_mesh())


@pytest.mark.parametrize("batch_size", [1, 3, 5, 63])
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_does(batch_size):
    with pytest.raises(UserError, match=f"--batch-size {batch_size} does not") as refusal:
        mesh.check_batch_size(batch_size, mesh.data_mesh())
    nearest = int(re.findall(r"\d+", str(refusal.value))[-1])
    assert nearest > 0 and nearest % 2 == 0 and abs(nearest - batch_size) == 1
