"""Chunks of fast steps take half a second, those of slow steps at most two."""

import pytest

from jaxcnn.training.chunks import chunk_steps


@pytest.mark.parametrize(
    ("step_seconds", "steps"),
    [(1e-3, 500), (0.11, 4), (0.125, 4), (0.5, 4), (0.6, 3), (0.9, 2), (1.1, 1), (60, 1)],
)
def test_a_chunk_of_slow_steps_has_up_to_four(step_seconds, steps):
    assert chunk_steps(step_seconds) == steps


def test_a_benchmark_may_measure_for_less_time():
    assert chunk_steps(1e-3, seconds=0.1) == 100
