"""Predicted training steps on chips that were not measured.

A step takes as long as the longest of three parts, which are assumed to overlap: its matrix
products, its memory traffic, and the all-reduce of its gradients. The time to launch an operation,
some microseconds on a GPU, is neglected. For a short step such as LeNet-5's, the prediction is
therefore a lower bound.

References:
  Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore
  architectures", 2009. Hockney and Jesshope, "Parallel Computers 2", 1988: n_1/2.
"""

from __future__ import annotations

import dataclasses
import math

# Fraction of a chip's peak that a network's products attain: an assumption. `measure_scale` tests
# it by comparing a prediction for this machine with a measurement.
ATTAINABLE = 0.5


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of a network's training step on one device.

    Attributes:
      flops_per_image: operations for an image.
      bytes_per_image: bytes read and written for an image.
      fixed_bytes: bytes read and written whatever the batch: parameters, gradients, optimizer
        state.
      gradient_bytes: bytes summed over the devices.
    """

    flops_per_image: float
    bytes_per_image: float
    fixed_bytes: float
    gradient_bytes: float


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device.

    Attributes:
      name: name of the device.
      flops: peak rate of matrix products, in operations per second.
      bandwidth: memory bandwidth, in bytes per second.
    """

    name: str
    flops: float
    bandwidth: float


@dataclasses.dataclass(frozen=True)
class Link:
    """A connection between chips.

    Attributes:
      bandwidth: bytes per second in each direction at once.
      latency: seconds per message.
      switched: True if the link connects all chips equally, False if only neighbours.
    """

    bandwidth: float
    latency: float
    switched: bool

    def all_reduce_seconds(self, num_bytes: float, num_chips: int) -> float:
        """Return the seconds of an all-reduce: halving and doubling if switched, else a ring.

        References:
          Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in
          MPICH", 2005.
        """
        messages = 2 * (math.log2(num_chips) if self.switched else num_chips - 1)
        sent = 2 * (num_chips - 1) / num_chips * num_bytes
        return sent / self.bandwidth + messages * self.latency


@dataclasses.dataclass(frozen=True)
class System:
    """Chips of one kind in a grid.

    Attributes:
      chip: kind of the chips.
      axes: axes of the grid, the fastest first: number of chips and their link.
    """

    chip: Chip
    axes: tuple[tuple[int, Link], ...] = ()

    @property
    def num_chips(self) -> int:
        """Return the number of chips."""
        return math.prod(size for size, _ in self.axes)

    def all_reduce_seconds(self, num_bytes: float) -> float:
        """Return the seconds of an all-reduce along one axis after the other.

        After each axis, a chip continues with its share of the sum.
        """
        seconds = 0.0
        for size, link in self.axes:
            seconds += link.all_reduce_seconds(num_bytes, size)
            num_bytes /= size
        return seconds


@dataclasses.dataclass(frozen=True)
class StepSeconds:
    """The three parts of a step, in seconds."""

    compute: float
    memory: float
    network: float

    @property
    def step(self) -> float:
        """Return the duration of the whole step."""
        return max(dataclasses.astuple(self))

    @property
    def limit(self) -> str:
        """Return the name of the longest part."""
        return max(dataclasses.asdict(self).items(), key=lambda part: part[1])[0]


def predict(costs: Costs, system: System, batch_per_chip: float) -> StepSeconds:
    """Predict the three parts of a step with a number of images on each chip."""
    num_bytes = costs.fixed_bytes + costs.bytes_per_image * batch_per_chip
    return StepSeconds(
        compute=costs.flops_per_image * batch_per_chip / (ATTAINABLE * system.chip.flops),
        memory=num_bytes / system.chip.bandwidth,
        network=system.all_reduce_seconds(costs.gradient_bytes),
    )


def half_speed_batch(costs: Costs, system: System) -> int:
    """Return the batch, over all chips, at which images/s are half of their limit.

    With a smaller batch, most of a step is the all-reduce or the traffic of parameters, which more
    chips do not shorten. This is Hockney's n_1/2.
    """
    compute = costs.flops_per_image / (ATTAINABLE * system.chip.flops)
    memory = costs.bytes_per_image / system.chip.bandwidth
    twice = 2 * max(compute, memory)  # seconds per image, at half speed
    fixed = costs.fixed_bytes / system.chip.bandwidth
    network = system.all_reduce_seconds(costs.gradient_bytes)
    return math.ceil(system.num_chips * max(fixed / (twice - memory), network / twice))


# Rates of float32 products at JAX's default precision: TF32 on the H100, bfloat16 on the TPU.
# NVIDIA, "H100 Tensor Core GPU" (data sheet): SXM, without sparsity. Google Cloud, "TPU v5e".
H100 = Chip("H100", flops=495e12, bandwidth=3.35e12)
V5E = Chip("TPU v5e", flops=197e12, bandwidth=819e9)

# Part of a device's name -> peak rate of products by type of the computation; float32 is TF32.
# NVIDIA's data sheets of the H100 (SXM) and H200, which have the same rates, and of the A100.
DATA_SHEET_FLOPS = {
    **dict.fromkeys(("H100 80GB HBM3", "H200"), {"float32": 495e12, "bfloat16": 989e12}),
    "A100": {"float32": 156e12, "bfloat16": 312e12},
}

# Bandwidths from the same pages and NVIDIA's of the DGX H100; all latencies are assumptions.
NVLINK = Link(450e9, 2e-6, switched=True)  # 900 GB/s, both directions together
INFINIBAND = Link(50e9, 5e-6, switched=True)  # 400 Gbit/s for each GPU
# 1,600 Gbit/s over four links. An axis of 16 is closed to a ring, of which both directions are
# used; on a shorter axis, one direction closes the ring.
ICI = Link(50e9, 1e-6, switched=False)
ICI_RING = Link(100e9, 1e-6, switched=False)
DATA_CENTER = Link(3.1e9, 20e-6, switched=True)  # 6.4 Tbit/s for each pod of 256

SYSTEMS = (
    System(H100),
    System(H100, ((8, NVLINK),)),
    System(V5E, ((2, ICI), (4, ICI))),
    System(H100, ((8, NVLINK), (8, INFINIBAND))),
    System(V5E, ((8, ICI), (8, ICI))),
    System(H100, ((8, NVLINK), (128, INFINIBAND))),
    System(V5E, ((16, ICI_RING), (16, ICI_RING), (4, DATA_CENTER))),
)
