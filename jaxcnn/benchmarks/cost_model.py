"""Predicted training steps on chips that were not measured.

A step takes as long as the longest of three parts, which are assumed to overlap: its matrix
products, its memory traffic, and the all-reduce of its gradients. Starting an operation is assumed
to take no time, though it takes some microseconds on a GPU. For a short step such as LeNet-5's, the
prediction is therefore a lower bound.

References:
  Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore
  architectures", 2009. Hockney and Jesshope, "Parallel Computers 2", 1988: n_1/2.
"""

from __future__ import annotations

import dataclasses
import math

# The part of a chip's peak that a network's products are taken to attain. An assumption; the
# prediction for the machine at hand, beside what is measured there, says how good it is.
ATTAINABLE = 0.5


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of a training step of one network for a device.

    Attributes:
      flops_per_image: operations for an image.
      bytes_per_image: bytes read and written for an image.
      fixed_bytes: bytes read and written for any batch: parameters, gradients, optimizer state.
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
      flops: peak rate of matrix products, in operations a second.
      bandwidth: memory bandwidth, in bytes a second.
    """

    name: str
    flops: float
    bandwidth: float


@dataclasses.dataclass(frozen=True)
class Link:
    """A connection between chips.

    Attributes:
      bandwidth: bytes a second that a chip sends while it receives as many.
      latency: seconds of a message.
      switched: whether it connects all chips equally, or only neighbours.
    """

    bandwidth: float
    latency: float
    switched: bool

    def all_reduce_seconds(self, num_bytes: float, num_chips: int) -> float:
        """By halving and doubling where it is switched, else around a ring.

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
      chip: each chip.
      axes: axes of the grid, the fastest first: number of chips and their link.
    """

    chip: Chip
    axes: tuple[tuple[int, Link], ...] = ()

    @property
    def num_chips(self) -> int:
        """Return the number of chips."""
        return math.prod(size for size, _ in self.axes)

    def all_reduce_seconds(self, num_bytes: float) -> float:
        """Along one axis after the other; what each chip holds of the sum shrinks on the way."""
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

    Most of a step with a smaller batch is the all-reduce, or reading and writing parameters, which
    more chips do not shorten. This is Hockney's n_1/2.
    """
    compute = costs.flops_per_image / (ATTAINABLE * system.chip.flops)
    memory = costs.bytes_per_image / system.chip.bandwidth
    twice = 2 * max(compute, memory)  # seconds an image, at half speed
    fixed = costs.fixed_bytes / system.chip.bandwidth
    network = system.all_reduce_seconds(costs.gradient_bytes)
    return math.ceil(system.num_chips * max(fixed / (twice - memory), network / twice))


# The products of float32 arrays at JAX's default precision: TF32 on the one, bfloat16 on the other.
# NVIDIA, "H100 Tensor Core GPU" (data sheet): SXM, without sparsity. Google Cloud, "TPU v5e".
H100 = Chip("H100", flops=495e12, bandwidth=3.35e12)
V5E = Chip("TPU v5e", flops=197e12, bandwidth=819e9)

# Bandwidths from the same pages and NVIDIA's of the DGX H100; all latencies are assumptions.
NVLINK = Link(450e9, 2e-6, switched=True)  # 900 GB/s, both directions together
INFINIBAND = Link(50e9, 5e-6, switched=True)  # 400 Gbit/s for each GPU
# 1,600 Gbit/s over four links. An axis of 16 closes to a ring, and both its directions are used; a
# shorter one goes out by one direction and back by the other.
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
