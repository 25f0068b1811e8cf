"""Predicted times of a step, and the costs behind them."""

import dataclasses
import functools
import io
import json

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jaxcnn.benchmarks import jax_sides, scaling
from jaxcnn.benchmarks.cost_model import (
    SYSTEMS,
    Chip,
    Costs,
    Link,
    System,
    half_speed_batch,
    predict,
)
from jaxcnn.benchmarks.scaling import (
    Figures,
    collective_bytes,
    compiled_step,
    costs_of,
    measure_scale,
    print_scale,
)
from jaxcnn.errors import UserError
from jaxcnn.models import MODELS
from jaxcnn.summary.summarize import summarize

compiled = functools.cache(
    lambda batch_size, num: compiled_step("lenet5", batch_size, jax.devices()[:num])
)

CHIP = Chip("a chip", flops=200, bandwidth=10)  # half of 200 is attainable: 100
COSTS = Costs(flops_per_image=300, bytes_per_image=20, fixed_bytes=40, gradient_bytes=8)
RING = Link(bandwidth=2, latency=0.5, switched=False)
SWITCH = Link(bandwidth=4, latency=0.25, switched=True)


def test_compiled_step_exchanges_the_gradients_once():
    parameters = summarize(MODELS["lenet5"](), (28, 28, 1)).parameters
    assert compiled(16, 1).collective_bytes == 0
    of_metrics = compiled(16, 2).collective_bytes - 4 * parameters
    assert 0 <= of_metrics <= 12


def test_costs_of_weak_and_strong_scaling():
    one, weak, strong = compiled(16, 1), compiled(32, 2), compiled(16, 2)
    assert (one.devices, strong.devices, weak.batch_size) == (1, 2, 32)
    assert weak.flops == pytest.approx(one.flops, rel=0.02)
    assert weak.bytes_moved == pytest.approx(one.bytes_moved, rel=0.1)
    costs = costs_of(one, strong)
    of_images = costs.flops_per_image * 16
    assert one.flops - strong.flops == pytest.approx(of_images / 2)
    assert of_images == pytest.approx(one.flops, rel=0.1)  # the rest is the optimizer's update
    assert strong.bytes_moved == pytest.approx(costs.fixed_bytes + 8 * costs.bytes_per_image)
    assert 4 * 61_706 < costs.fixed_bytes < one.bytes_moved


def test_costs_of_counts_the_useful_operations():
    costs = costs_of(compiled(16, 1), compiled(16, 2))
    summary = summarize(MODELS["lenet5"](), (28, 28, 1))
    # The gradient of the images is not computed.
    useful = 2 * (3 * summary.multiply_adds - summary.layers[0].multiply_adds)
    assert costs.flops_per_image == pytest.approx(useful, rel=0.05)


def test_collective_bytes_are_read_off_the_program():
    program = """
  %all-reduce.1 = s32[] all-reduce(%a), channel_id=1
  %all-reduce.2 = (f32[6]{0}, bf16[2,3]{1,0}, /*index=2*/f64[]) all-reduce(%b, %c), channel_id=2
  ROOT %collective-permute = pred[7]{0} collective-permute(%d), source_target_pairs={{1,0}}
  %get-tuple-element.2 = f32[6]{0} get-tuple-element(%all-reduce.2), index=0
  %all-reduce-fusion = f32[100]{0} fusion(%all-reduce.2), kind=kLoop
"""
    assert collective_bytes(program) == 4 + (24 + 12 + 8) + 7


def test_costs_of_two_programs_by_hand():
    one = Figures(1, 8, flops=90.0, bytes_moved=34.0, collective_bytes=0, temporary_bytes=0)
    many = Figures(4, 8, flops=30.0, bytes_moved=16.0, collective_bytes=5, temporary_bytes=0)
    assert costs_of(one, many) == Costs(10.0, 3.0, 10.0, 5)


def test_all_reduce_seconds_by_hand():
    # 8 bytes over 4 chips: each sends 2 * 3/4 of them.
    assert RING.all_reduce_seconds(8, 4) == 12 / 2 + 6 * 0.5
    assert SWITCH.all_reduce_seconds(8, 4) == 12 / 4 + 4 * 0.25
    grid = System(CHIP, ((4, SWITCH), (2, RING)))
    assert grid.num_chips == 8
    assert grid.all_reduce_seconds(8) == 4 + (2 / 2 + 2 * 0.5)  # 2 of the 8 bytes are left
    assert System(CHIP).num_chips == 1 and System(CHIP).all_reduce_seconds(8) == 0


def test_predict_a_step_by_hand():
    ring = System(CHIP, ((4, RING),))
    found = predict(COSTS, ring, 2)
    assert dataclasses.astuple(found) == (6, 8, 9) and (found.step, found.limit) == (9, "network")
    found = predict(COSTS, System(CHIP), 2)
    assert (found.network, found.step, found.limit) == (0, 8, "memory")
    found = predict(COSTS, System(CHIP), 5)
    assert (found.step, found.limit) == (15, "compute")
    # The limit is 3 s per image, so half speed is 6: 4 + 2b = 6b for memory, 9 = 6b for the ring.
    assert half_speed_batch(COSTS, System(CHIP)) == 1
    assert half_speed_batch(COSTS, ring) == 4 * 1.5
    memory_bound = dataclasses.replace(COSTS, flops_per_image=100)  # 4 + 2b = 4b
    assert half_speed_batch(memory_bound, System(CHIP)) == 2


sizes = st.floats(1, 1e9)
costs = st.builds(Costs, sizes, sizes, sizes, sizes)
links = st.builds(Link, st.floats(1, 1e9), st.floats(0, 1), st.booleans())
chips = st.builds(Chip, st.just("a chip"), sizes, sizes)
axes = st.lists(st.tuples(st.sampled_from([2, 4, 16]), links), max_size=3).map(tuple)
systems = st.builds(System, chips, axes)


@given(costs, systems, st.integers(1, 1000), st.integers(1, 1000))
def test_predict_takes_longer_for_larger_batches(costs, system, batch, more):
    small, large = (predict(costs, system, size).step for size in (batch, batch + more))
    assert small <= large <= small * (batch + more) / batch * (1 + 1e-9)


@given(costs, systems, links)
def test_predict_is_never_shorter_with_another_axis(costs, system, link):
    longer = dataclasses.replace(system, axes=(*system.axes, (2, link)))
    assert predict(costs, longer, 1).network >= predict(costs, system, 1).network
    assert half_speed_batch(costs, longer) >= half_speed_batch(costs, system)


@given(costs, systems)
def test_half_speed_batch_has_half_the_speed(costs, system):
    def speed(batch):
        return batch / predict(costs, system, batch / system.num_chips).step

    found, best = half_speed_batch(costs, system), speed(1e30)
    assert speed(found) >= best / 2 * (1 - 1e-9)
    assert found == 1 or speed(found - 1) <= best / 2 * (1 + 1e-9)


def test_systems_are_those_of_the_table():
    assert [(system.num_chips, system.chip.name) for system in SYSTEMS] == [
        (1, "H100"),
        *((num, chip) for num in (8, 64, 1024) for chip in ("H100", "TPU v5e")),
    ]


def test_measure_scale_from_programs_to_tables(monkeypatch):
    def compare(job, against, *, yardsticks, rounds, seconds, say):
        assert (against, yardsticks) == (["linen"], ("matmul", "copy"))
        turn = {"jaxcnn": 0.01, "linen": 0.03, "matmul": 0.5, "copy": 0.25}
        all_turns = [
            {side: {"steps": 2, "seconds": 2 * s, "peak_mib": 900} for side, s in turn.items()}
            for _ in range(rounds)
        ]
        sides = dict.fromkeys(turn, {"flops": 10**9})
        return {"device": "a processor", "cpu_count": 2, "sides": sides, "rounds": all_turns}

    monkeypatch.setattr(scaling, "compare", compare)
    monkeypatch.setattr(scaling, "NUM_DEVICES", (1, 2))
    monkeypatch.setattr(scaling, "compiled_step", lambda _, size, all: compiled(size, len(all)))
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)  # JAX already has devices
    found = measure_scale("lenet5", 16, rounds=3, seconds=1, say=lambda line: None)
    assert "peak_mib" not in json.dumps(found)  # it starts at this process's peak
    assert [row["batch_size"] for row in found["weak"] + found["strong"]] == [16, 32, 16, 16]
    here = found["here"]
    assert here["flops"] == 2e9 and here["bandwidth"] == 2 * 2**28 / 0.25
    costs = Costs(**found["costs"])
    assert here["step_seconds"] == predict(costs, System(Chip("", 2e9, 2**31)), 16).step
    assert here["measured"] == {"jaxcnn": 0.01, "linen": 0.03}
    assert found["predictions"][1]["batch_size"] == 128

    console = Console(width=110, file=io.StringIO())
    print_scale(found, console)
    text = console.file.getvalue()
    assert "PREDICTED" in text and "not measured" in text
    assert f"{0.03 / here['step_seconds']:.2f}x" in text
    assert "products at 2.00 GFLOP/s, copies at 2.15 GB/s" in text
    assert all(f"{num} {chip}" in text for num in (8, 64, "1,024") for chip in ("H100", "TPU v5e"))

    for refused in (0, -2, 15):
        with pytest.raises(UserError, match=f"`batch_size` is {refused}; expected a multiple of 2"):
            measure_scale("lenet5", refused, rounds=1, seconds=1, say=lambda line: None)


def test_compiled_step_refuses_a_network_with_groups():
    message = "no network of `what` scale is called 'alexnet-2012'"
    with pytest.raises(UserError, match=message):
        compiled_step("alexnet-2012", 2, jax.devices()[:1])


def test_prepare_copy_counts_no_flops(monkeypatch):
    monkeypatch.setattr(jax_sides, "COPY_BYTES", 64)
    prepared = jax_sides.prepare_copy(None)
    prepared.run(3)
    assert prepared.flops is None
