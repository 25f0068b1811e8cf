"""Which runs get a CPU device for each core."""

import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxcnn.distributed import mesh
from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.training import cores

SEES = """
import jax, sys
from jaxcnn.training import cores
exec(sys.argv[3])
cores._num_cores = lambda: 2
cores.use_cores(sys.argv[1], int(sys.argv[2]))
print(jax.device_count())
"""


def devices_seen(network, batch_size, *, before="", **environment):
    """Return how many devices JAX sees in a process of its own after `use_cores`."""
    clean = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", SEES, network, str(batch_size), before],
        env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_two_cores_get_a_device_each():
    assert devices_seen("lenet5", 64) == 2


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("lenet5", 64), {"JAX_NUM_CPU_DEVICES": "1"}),
        (("lenet5", 64), {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}),
        (("lenet5", 64), {"JAX_DISABLE_JIT": "1"}),
    ],
)
def test_the_user_decides(arguments, environment):
    assert devices_seen(*arguments, **environment) == 1


@pytest.mark.parametrize(
    ("network", "batch_size", "num_cores"),
    [
        ("lenet5", 64, 1),
        ("lenet5", 64, 4),
        ("lenet5", 62, 2),  # fewer than two vectors of images each
        ("lenet5", 0, 2),
        ("alexnet-32", 30, 2),
        ("cuda-convnet-18pct", 0, 2),
        ("mlp-1000", 512, 2),  # no convolutions
        ("lenet5", 65, 2),
        ("alexnet-2012", 128, 2),  # dropout, and many parameters
        ("alexnet", 64, 2),
    ],
)
def test_others_keep_one_device(monkeypatch, network, batch_size, num_cores):
    monkeypatch.setattr(cores, "_num_cores", lambda: num_cores)
    assert not cores.are_faster(network, batch_size)


@pytest.mark.parametrize(
    ("network", "batch_size"),
    [("lenet5", 64), ("lenet5-modern", 2), ("alexnet-32", 32), ("cuda-convnet-18pct", 2)],
)
def test_small_batches_of_wide_networks_suffice(monkeypatch, network, batch_size):
    monkeypatch.setattr(cores, "_num_cores", lambda: 2)
    assert cores.are_faster(network, batch_size)


@pytest.mark.parametrize(
    ("network", "smallest"), [("lenet5-relu", 32), ("alexnet-32", 8), ("cuda-convnet-18pct", 2)]
)
def test_evaluation_needs_fewer_images(monkeypatch, network, smallest):
    monkeypatch.setattr(cores, "_num_cores", lambda: 2)
    assert cores.are_faster(network, smallest, train=False)
    assert cores.are_faster(network, 2003, train=False)  # it is filled up
    assert not cores.are_faster(network, smallest - 2, train=False)


def test_evaluation_with_many_parameters_keeps_one_device(monkeypatch):
    monkeypatch.setattr(cores, "_num_cores", lambda: 2)
    assert not cores.are_faster("alexnet-2012", 64, train=False)


@pytest.mark.parametrize("num_devices", [1, 2])
@pytest.mark.parametrize(
    ("network", "num_images"),
    [
        *(("lenet5", 2), ("lenet5", 34)),
        pytest.param("lenet5", 128, marks=pytest.mark.slow),
        pytest.param("alexnet", 6, marks=pytest.mark.slow),  # fc6 takes the whole batch
    ],
)
def test_forward_gives_the_outputs_of_the_network(num_devices, network, num_images):
    model, size = MODELS[network](), (num_images, *IMAGE_SHAPES[network])
    images = jax.random.normal(jax.random.key(0), size)
    variables = jax.jit(model.init)(jax.random.key(1), images[:1])
    devices = jax.sharding.Mesh(jax.devices()[:num_devices], ("data",))
    sharding = mesh.batch_sharding(devices)

    def forward(variables, images):
        return cores.forward(model.apply, variables, images, sharding)

    program = mesh.jit(forward, devices, sharding).lower(variables, images).compile()
    chex.assert_trees_all_close(
        program(variables, images), model.apply(variables, images), rtol=1e-5, atol=1e-6
    )
    assert "all-" not in program.as_text()  # nothing is exchanged


def test_add_up_keeps_shapes_and_types(monkeypatch):
    monkeypatch.setattr(cores, "MAX_CONCATENATED", 4)  # a and d
    monkeypatch.setattr(cores, "MAX_FLAT", 6)  # and b; c is reduced alone
    key = jax.random.key(0)
    tree = {
        "a": jnp.arange(8, dtype=jnp.int32),
        "b": jax.random.normal(key, (2, 3, 2)),
        "c": jax.random.normal(key, (2, 7)),
        "d": jnp.float32([3, 4]),
    }
    devices = jax.sharding.Mesh(jax.devices()[:2], ("data",))
    sharding = mesh.batch_sharding(devices)

    def of_core(_, share):
        return cores.add_up(share, tuple(sharding.mesh.axis_names))

    program = jax.jit(cores.by_core(of_core, sharding, jax.sharding.PartitionSpec()))
    sums = program(None, tree)
    expected = {name: x.reshape(2, -1, *x.shape[1:]).sum(0) for name, x in tree.items()}
    chex.assert_trees_all_equal_shapes_and_dtypes(sums, expected)
    chex.assert_trees_all_close(sums, expected, rtol=1e-6)
    text = program.lower(None, tree).compile().as_text()
    assert "f32[11]{0} concatenate" not in text  # whose loop may be slow


def test_later_it_does_nothing():
    seen = devices_seen("lenet5", 64, before="jax.devices()")
    assert seen == 1
