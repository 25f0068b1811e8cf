"""The device mesh and the placement of arrays; the same code for one device and many."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcnn.errors import UserError

Tree = TypeVar("Tree")

_log = logging.getLogger(__name__)

# Compiler options that turn a loop over steps into one CUDA graph. The host launches it once, and
# independent operations run concurrently. By default XLA leaves convolutions out of graphs, because
# not all can be captured (openxla/xla#34572), and therefore the loops around them.
GRAPH_OPTIONS = {
    "xla_gpu_enable_command_buffer": (
        "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE,CONVOLUTION"
    ),
    "xla_gpu_command_buffer_scheduling_mode": "CONCURRENT",
    "xla_gpu_graph_min_graph_size": "1",  # a program with little besides its loop is small
}

# Compiler options of a program for a CPU: vectors of 512 bits where the processor has them. XLA's
# default is 256.
CPU_OPTIONS: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}

# Compiler options of a program for several CPU devices. By default each would use all cores.
CORE_OPTIONS = CPU_OPTIONS | {"xla_cpu_multi_thread_eigen": False}


def device_mesh(model_axis: int = 1) -> Mesh:
    """Return a mesh of all devices with axes `data` and `model`, the second of size `model_axis`.

    Raises:
      UserError: the number of devices is not a multiple of `model_axis`.
    """
    num_devices = jax.device_count()
    if num_devices % model_axis:
        raise UserError(
            f"`model_axis` is {model_axis}; expected a divisor of the {num_devices} devices"
        )
    shape = num_devices // model_axis, model_axis
    return jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return a sharding that replicates an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return a sharding that splits the first dimension over all devices of both axes."""
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
            f"`model_axis` is {num_devices}; it requires a network with fc6 and fc7, such as "
            f"AlexNet, whose units divide by {num_devices}; set it to 1"
        )
    return shardings


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Replicate arrays, equal in all processes, on every device of the mesh."""
    if jax.process_count() == 1:
        return jax.device_put(tree, replicated(mesh))

    def place(leaf: Any) -> jax.Array:
        # device_put places on the devices of one process only, and compares values across them.
        return jax.make_array_from_callback(leaf.shape, replicated(mesh), lambda _: leaf)

    return jax.tree.map(place, tree)


def jit(function: Callable[..., Any], mesh: Mesh, out_shardings: Any = None, **options: Any) -> Any:
    """Jit a function under the mesh; its results are replicated unless `out_shardings` is given.

    Programs for a CPU get CPU_OPTIONS. Several CPU devices of a single process have one thread each
    (CORE_OPTIONS).
    """

    @functools.wraps(getattr(function, "func", function))  # of a partial: it names the program
    def on_mesh(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for layers that ask
            return function(*args)

    devices: set[jax.Device] = {*mesh.devices.flat}
    if {device.platform for device in devices} == {"cpu"}:
        defaults = CORE_OPTIONS if are_cores(devices) else CPU_OPTIONS
        options["compiler_options"] = defaults | (options.get("compiler_options") or {})
    return jax.jit(on_mesh, out_shardings=out_shardings or replicated(mesh), **options)


def compile_for(function: Any, *args: Any) -> Callable[..., Any]:
    """Compile a jitted function for such arguments; do nothing under `jax_disable_jit`."""
    if jax.config.values["jax_disable_jit"]:
        return function
    return function.lower(*args).compile()


def compile_loop(function: Any, state: Any, metrics: Any, *args: Any) -> Callable[..., Any]:
    """Compile a jitted loop over steps; return it unchanged under `jax_disable_jit`.

    On one NVIDIA GPU the program is one CUDA graph (GRAPH_OPTIONS). It is tried with zeros; if that
    fails, the usual program is returned.

    Args:
      function: program of a loop; it donates its first two arguments.
      state: training state; only its shapes, types and shardings are read.
      metrics: metric sums; only their shapes, types and shardings are read.
      *args: other arguments; with them, no step follows a state of zeros.
    """
    if not _may_be_graph(_devices(state)):
        return compile_for(function, state, metrics, *args)

    def zeros(leaf: jax.Array) -> jax.Array:
        return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)

    lowered = function.lower(state, metrics, *args)
    try:
        program = lowered.compile(compiler_options=GRAPH_OPTIONS)
        for _ in range(2):  # the graph may be captured in the second run
            jax.block_until_ready(program(*jax.tree.map(zeros, (state, metrics)), *args))
    except jax.errors.JaxRuntimeError as error:
        reason = (str(error).splitlines() or ["no message"])[0]
        _log.warning("steps are not one CUDA graph, and may be slower: %s", reason)
        program = lowered.compile()
    return program


def are_cores(devices: Collection[jax.Device]) -> bool:
    """Return whether the devices are several CPU devices of a single process."""
    platforms = {device.platform for device in devices}
    return len(devices) > 1 and platforms == {"cpu"} and jax.process_count() == 1


def _devices(tree: Any) -> set[jax.Device]:
    arrays = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "sharding")]
    return {device for leaf in arrays for device in leaf.sharding.device_set}


def _may_be_graph(devices: Collection[jax.Device]) -> bool:
    """Return whether the devices are one NVIDIA GPU, and XLA knows GRAPH_OPTIONS."""
    return (
        [device.platform for device in devices] == ["gpu"]
        and all("cuda" in device.client.platform_version for device in devices)
        and jax.__version_info__ >= (0, 11)
        and "xla_gpu_enable_command_buffer" not in os.environ.get("XLA_FLAGS", "")
        and not jax.config.values["jax_disable_jit"]
    )


def shardings(tree: Any) -> Any:
    """Return the sharding of each array."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def process_share(batch_size: int) -> slice:
    """Return the slice of a batch that this process reads."""
    size = batch_size // jax.process_count()
    return slice(jax.process_index() * size, (jax.process_index() + 1) * size)


def place_shares(tree: Tree, mesh: Mesh) -> Tree:
    """Assemble a batch on the devices from the `process_share` of each process."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), tree)


def round_up(batch_size: int, mesh: Mesh) -> int:
    """Return the next batch size that is a multiple of the number of devices."""
    return -(-batch_size // mesh.size) * mesh.size


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Check that a batch can be split evenly over the devices.

    Raises:
      UserError: it cannot; the message names the nearest batch size that can.
    """
    if batch_size % mesh.size:
        nearest = max(1, round(batch_size / mesh.size)) * mesh.size
        raise UserError(
            f"`batch_size` is {batch_size}; expected a multiple of {mesh.size}, the number of "
            f"devices; the nearest is {nearest} (CUDA_VISIBLE_DEVICES=0 leaves one GPU, "
            "JAX_PLATFORMS=cpu the CPU)"
        )
