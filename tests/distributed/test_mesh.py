"""Where arrays lie on the devices."""

import re
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxcnn.distributed import mesh
from jaxcnn.errors import UserError
from jaxcnn.models.alexnet import MODEL_AXIS


def test_batch_sharding_divides_and_replicate_copies():
    both = mesh.device_mesh()
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
def test_round_up_to_the_devices(batch_size, expected):
    assert mesh.round_up(batch_size, mesh.device_mesh()) == expected


def test_check_batch_size_accepts_a_batch_that_divides():
    mesh.check_batch_size(64, mesh.device_mesh())


@pytest.mark.parametrize("batch_size", [1, 3, 5, 63])
def test_check_batch_size_names_the_nearest_that_divides(batch_size):
    with pytest.raises(UserError, match=f"`batch_size` is {batch_size}; ex") as refusal:
        mesh.check_batch_size(batch_size, mesh.device_mesh())
    nearest = int(re.search(r"nearest is (\d+)", str(refusal.value))[1])
    assert nearest > 0 and nearest % 2 == 0 and abs(nearest - batch_size) == 1


def a_state(units):
    shapes = {"fc6": (8, units), "fc7": (units, 8)}
    return {
        name: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)} for name, shape in shapes.items()
    }


def test_state_sharding_splits_by_columns_and_rows():
    mesh_of_two = mesh.device_mesh(model_axis=2)
    shardings = mesh.state_sharding(
        {"params": a_state(6), "opt_state": (a_state(6),)}, mesh_of_two, MODEL_AXIS
    )
    for layers in shardings["params"], shardings["opt_state"][0]:
        assert layers["fc6"]["kernel"].shard_shape((8, 6)) == (8, 3)
        assert layers["fc7"]["kernel"].shard_shape((6, 8)) == (3, 8)


@pytest.mark.parametrize("state", [a_state(5), {"C1": {"kernel": jnp.ones((2, 2))}}])
def test_state_sharding_refuses_what_cannot_be_split(state):
    with pytest.raises(
        UserError, match="`model_axis` is 2; it requires a network with fc6 and fc7"
    ):
        mesh.state_sharding(state, mesh.device_mesh(model_axis=2), MODEL_AXIS)
    mesh.state_sharding(state, mesh.device_mesh(), MODEL_AXIS)


def test_device_mesh_refuses_devices_that_do_not_divide():
    with pytest.raises(UserError, match="`model_axis` is 3; expected a divisor of the 2"):
        mesh.device_mesh(model_axis=3)


@pytest.mark.parametrize(
    ("options", "is_graph"),
    [({}, True), ({"xla_gpu_enable_command_buffer": "NONSENSE"}, False)],
)
def test_compile_loop_tries_a_graph_and_keeps_the_state(options, is_graph, monkeypatch, caplog):
    monkeypatch.setattr(mesh, "_may_be_graph", lambda devices: True)
    monkeypatch.setattr(mesh, "GRAPH_OPTIONS", options)
    calls = []

    def steps(state, metrics, stop):
        jax.debug.callback(lambda state, stop: calls.append((int(state), int(stop))), state, stop)
        add = lambda carry: (carry[0] + 1, carry[1] + 2.0)  # noqa: E731
        return jax.lax.while_loop(lambda carry: carry[0] < stop, add, (state, metrics))

    state, metrics = jnp.int32(3), jnp.float32(0)
    donated = jnp.int32(7)
    jax.jit(lambda x: x, donate_argnums=0)(donated)  # the state of a feed may be used up
    program = mesh.compile_loop(
        jax.jit(steps, donate_argnums=(0, 1)), donated, metrics, jnp.int32(0)
    )
    jax.effects_barrier()
    assert calls == ([(0, 0), (0, 0)] if is_graph else [])
    assert ("steps are not one CUDA graph" in caplog.text) == (not is_graph)
    state, metrics = program(state, metrics, jnp.int32(5))
    assert (state, metrics) == (5, 4.0)


def device(platform="gpu", version="PJRT C API\ncuda 13000"):
    return SimpleNamespace(platform=platform, client=SimpleNamespace(platform_version=version))


def test_graphs_are_for_one_nvidia_gpu(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 0))
    assert mesh._may_be_graph([device()])
    assert not mesh._may_be_graph([device(), device()])
    assert not mesh._may_be_graph([device(version="rocm 60400")])
    assert not mesh._may_be_graph(jax.devices()[:1])
    with jax.disable_jit():
        assert not mesh._may_be_graph([device()])
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 9))
    assert not mesh._may_be_graph([device()])
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 0))
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_command_buffer=")
    assert not mesh._may_be_graph([device()])


def test_xla_knows_the_options_of_a_graph():
    if jax.__version_info__ < (0, 11):
        pytest.skip("graphs are made from jax 0.11 on")
    jax.jit(lambda x: x + 1, compiler_options=mesh.GRAPH_OPTIONS)(1)


def test_jit_gives_each_of_several_cpu_devices_one_thread(monkeypatch):
    options = []
    monkeypatch.setattr(jax, "jit", lambda *_, **kwargs: options.append(kwargs))
    devices = jax.devices()
    for some in (devices[:1], devices):
        along = jax.make_mesh((len(some),), ("data",), devices=some)
        mesh.jit(jnp.sin, along, compiler_options={"xla_backend_optimization_level": 0})
    asked = {"xla_backend_optimization_level": 0}
    assert [each["compiler_options"] for each in options] == [
        mesh.CPU_OPTIONS | asked,
        mesh.CORE_OPTIONS | asked,
    ]


def test_xla_knows_the_options_of_cores():
    jax.jit(jnp.sin, compiler_options=mesh.CORE_OPTIONS)(1.0)
