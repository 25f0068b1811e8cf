"""Which runs get a CPU device for each core."""

import os
import subprocess
import sys

import chex
import jax
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
        ("cuda-convnet-18pct", 6, 2),
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
    [("lenet5", 64), ("lenet5-modern", 8), ("alexnet-32", 32), ("cuda-convnet-18pct", 8)],
)
def test_small_batches_of_wide_networks_suffice(monkeypatch, network, batch_size):
    monkeypatch.setattr(cores, "_num_cores", lambda: 2)
    assert cores.are_faster(network, batch_size)


@pytest.mark.parametrize(("network", "faster"), [("alexnet-2012", False), ("lenet5-relu", True)])
def test_evaluation_is_faster_with_few_parameters(monkeypatch, network, faster):
    monkeypatch.setattr(cores, "_num_cores", lambda: 2)
    assert cores.are_faster(network, 64, train=False) == faster
    assert not cores.are_faster(network, 62, train=False)


@pytest.mark.parametrize("num_devices", [1, 2])
@pytest.mark.parametrize("num_images", [2, 34, 128])
def test_forward_gives_the_outputs_of_the_network(num_devices, num_images):
    model, size = MODELS["lenet5"](), (num_images, *IMAGE_SHAPES["lenet5"])
    images = jax.random.normal(jax.random.key(0), size)
    variables = jax.jit(model.init)(jax.random.key(1), images[:1])
    devices = jax.sharding.Mesh(jax.devices()[:num_devices], ("data",))
    sharding = mesh.batch_sharding(devices)

    def forward(variables, images):
        return cores.forward(model.apply, variables, images, sharding)

    program = jax.jit(forward).lower(variables, images).compile()
    chex.assert_trees_all_close(
        program(variables, images), model.apply(variables, images), rtol=1e-5, atol=1e-6
    )
    assert "all-" not in program.as_text()  # nothing is exchanged


def test_later_it_does_nothing():
    seen = devices_seen("lenet5", 64, before="jax.devices()")
    assert seen == 1
