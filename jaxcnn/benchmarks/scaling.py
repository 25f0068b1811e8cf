"""The cost of a training step over the number of devices, from its compiled programs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from rich import box
from rich.console import Console
from rich.table import Table

from jaxcnn.benchmarks import linen_networks
from jaxcnn.benchmarks.compare import compare
from jaxcnn.benchmarks.cost_model import (
    ATTAINABLE,
    SYSTEMS,
    Chip,
    Costs,
    System,
    half_speed_batch,
    predict,
)
from jaxcnn.benchmarks.jax_sides import initial_state
from jaxcnn.benchmarks.job import COPY_BYTES, Job
from jaxcnn.benchmarks.table import short
from jaxcnn.distributed import mesh
from jaxcnn.errors import UserError, lookup
from jaxcnn.models.variants import image_shape
from jaxcnn.training.step import train_step

NUM_DEVICES = (1, 2, 4, 8)
# Without alexnet-2012, because XLA does not split plain linen's grouped convolutions over devices.
NETWORKS = {name: linen_networks.NETWORKS[name] for name in ("lenet5", "alexnet")}

_COLLECTIVE = re.compile(
    r" = (.*) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\("
)
_ARRAY = re.compile(r"[a-z]+(\d*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Figures:
    """The compiler's figures for one device's share of a training step.

    Attributes:
      devices: number of devices that share the batch.
      batch_size: images over all devices.
      flops: number of operations.
      bytes_moved: bytes read and written; a fused group counts as one operation.
      collective_bytes: size of the results of all-reduces and other collectives.
      temporary_bytes: memory in addition to arguments and results.
    """

    devices: int
    batch_size: int
    flops: float
    bytes_moved: float
    collective_bytes: int
    temporary_bytes: int


def compiled_step(network: str, batch_size: int, devices: Sequence[jax.Device]) -> Figures:
    """Compile a float32 training step with its batch split over the devices; run nothing.

    The network is plain linen's, because these programs are compiled for a CPU, where jaxcnn's
    convolution contains other operations than on a GPU or TPU.

    Raises:
      UserError: the network is not in NETWORKS.
    """
    model = lookup("network of `what` scale", network, NETWORKS)()
    along = jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=list(devices)
    )
    job = Job("linen", "", network, "train", batch_size, "float32")
    state, key = jax.eval_shape(lambda: (initial_state(job, model), jax.random.key(0)))
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *image_shape(network)), jnp.float32),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }
    everywhere, split = mesh.replicated(along), mesh.batch_sharding(along)
    program = jax.jit(
        train_step,
        in_shardings=(everywhere, split, everywhere),
        out_shardings=everywhere,
        donate_argnums=0,
        # The figures are counted before the backend's optimizations, which only take time.
        compiler_options={"xla_backend_optimization_level": 0},
    )
    compiled = program.lower(state, batch, key).compile()
    counted: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    return Figures(
        devices=len(devices),
        batch_size=batch_size,
        flops=counted["flops"],
        bytes_moved=counted["bytes accessed"],
        collective_bytes=collective_bytes(compiled.as_text() or ""),
        temporary_bytes=memory.temp_size_in_bytes,
    )


def collective_bytes(program: str) -> int:
    """Return the bytes of all results of collective operations in a program, given as HLO."""
    return sum(
        int(bits or 8) // 8 * math.prod(int(size) for size in shape.split(",") if size)
        for results in _COLLECTIVE.findall(program)
        for bits, shape in _ARRAY.findall(results)
    )


def costs_of(one: Figures, many: Figures) -> Costs:
    """Fit the costs of a step to two programs with different numbers of images per device.

    Args:
      one: figures of one device.
      many: figures of several devices, for the same batch.
    """
    most, least = one.batch_size / one.devices, many.batch_size / many.devices
    bytes_per_image = (one.bytes_moved - many.bytes_moved) / (most - least)
    return Costs(
        flops_per_image=(one.flops - many.flops) / (most - least),
        bytes_per_image=bytes_per_image,
        fixed_bytes=one.bytes_moved - bytes_per_image * most,
        gradient_bytes=many.collective_bytes,
    )


def measure_scale(
    network: str, batch_size: int, *, rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Compile steps for 1 to 8 CPU devices, predict from them, and measure one device here.

    Call this function before JAX initializes its devices.

    Args:
      network: a name in NETWORKS.
      batch_size: images per device in weak scaling, over all devices in strong scaling.
      rounds: number of turns of each side in the measurement.
      seconds: shortest duration of a turn.
      say: function that prints a progress line.

    Returns:
      The arguments; `weak` and `strong`, the figures of each program; `costs`; `predictions`;
      `here`, a prediction for this machine and its measurement; `comparison`, the result of
      `compare`.

    Raises:
      UserError: the network is not in NETWORKS, or the batch is not a multiple of 8.
    """
    if batch_size < 1 or batch_size % NUM_DEVICES[-1]:
        raise UserError(
            f"`batch_size` is {batch_size}; expected a multiple of {NUM_DEVICES[-1]} for `what` "
            "scale, which splits it over as many devices; choose such a size"
        )
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", NUM_DEVICES[-1])
    say("compiling")
    devices = jax.devices()
    strong = [compiled_step(network, batch_size, devices[:num]) for num in NUM_DEVICES]
    weak = strong[:1] + [
        compiled_step(network, batch_size * num, devices[:num]) for num in NUM_DEVICES[1:]
    ]
    costs = costs_of(strong[0], strong[-1])

    job = Job("", "", network, "train", batch_size, "float32")
    comparison = compare(
        job, ["linen"], yardsticks=("matmul", "copy"), rounds=rounds, seconds=seconds, say=say
    )
    for turns in comparison["rounds"]:
        for turn in turns.values():
            del turn["peak_mib"]  # starts at the peak of this process, which compiled much
    step_seconds = {
        side: median(
            turns[side]["seconds"] / turns[side]["steps"] for turns in comparison["rounds"]
        )
        for side in comparison["sides"]
    }
    chip = Chip(
        comparison["device"],
        flops=comparison["sides"]["matmul"]["flops"] / step_seconds.pop("matmul"),
        bandwidth=2 * COPY_BYTES / step_seconds.pop("copy"),
    )
    return {
        "network": network,
        "what": "scale",
        "batch_size": batch_size,
        "weak": [dataclasses.asdict(figures) for figures in weak],
        "strong": [dataclasses.asdict(figures) for figures in strong],
        "costs": dataclasses.asdict(costs),
        "predictions": [_prediction(costs, system, batch_size) for system in SYSTEMS],
        "here": {
            **dataclasses.asdict(chip),
            **_prediction(costs, System(chip), batch_size),
            "measured": step_seconds,
        },
        "comparison": comparison,
    }


def _prediction(costs: Costs, system: System, batch_per_chip: int) -> dict[str, Any]:
    seconds = predict(costs, system, batch_per_chip)
    batch_size = batch_per_chip * system.num_chips
    return {
        "chip": system.chip.name,
        "num_chips": system.num_chips,
        "batch_size": batch_size,
        "seconds": dataclasses.asdict(seconds),
        "step_seconds": seconds.step,
        "limit": seconds.limit,
        "images_per_second": batch_size / seconds.step,
        "half_speed_batch": half_speed_batch(costs, system),
    }


def print_scale(found: dict[str, Any], console: Console) -> None:
    """Print the programs, the predictions and the check, as tables."""
    title = f"{found['network']}, a compiled training step, figures of one device"
    table = _table(
        title, "scaling", "devices", "batch", "MFLOP", "MB moved", "MB exchanged", "MB held"
    )
    for scaling in ("weak", "strong"):
        for row in found[scaling]:
            table.add_row(
                scaling,
                f"{row['devices']}",
                f"{row['batch_size']:,}",
                short(row["flops"] / 1e6),
                short(row["bytes_moved"] / 1e6),
                short(row["collective_bytes"] / 1e6),
                short(row["temporary_bytes"] / 1e6),
            )
    console.print(table)

    here = found["here"]
    title = f"{found['network']}, batch {found['batch_size']}: one device here"
    table = _table(title, "", "ms/step", "of prediction")
    table.add_row(f"predicted ({here['limit']})", short(1e3 * here["step_seconds"]), "")
    for side, seconds in here["measured"].items():
        ratio = seconds / here["step_seconds"]
        table.add_row(f"{side}, measured", short(1e3 * seconds), f"{ratio:.2f}x")
    console.print(table)
    console.print(
        f"{here['name']}, {found['comparison']['cpu_count']} cores: matrix products at "
        f"{short(here['flops'] / 1e9)} GFLOP/s, copies at {short(here['bandwidth'] / 1e9)} GB/s; "
        "both measured in the same turns."
    )

    title = f"{found['network']}, PREDICTED, {found['batch_size']} images a chip"
    parts = ("compute µs", "memory µs", "network µs")
    table = _table(title, "chips", *parts, "limit", "images/s", "stops scaling below")
    for row in found["predictions"]:
        table.add_row(
            f"{row['num_chips']:,} {row['chip']}",
            *(short(1e6 * row["seconds"][part.split()[0]]) for part in parts),
            row["limit"],
            _three_digits(row["images_per_second"]),
            _three_digits(row["half_speed_batch"]),
        )
    console.print(table)
    console.print(
        "Predicted from data sheets, not measured. Assumptions: a step takes as long as the "
        f"longest of its three parts, products run at {ATTAINABLE:.0%} of the peak, and launching "
        "an operation takes no time. Below the batch in the last column, images/s are less than "
        "half of their limit for large batches."
    )


def _three_digits(figure: float) -> str:
    """Format a prediction with three significant digits."""
    return f"{float(f'{figure:.3g}'):,.0f}"


def _table(title: str, first: str, *headings: str) -> Table:
    table = Table(first, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
