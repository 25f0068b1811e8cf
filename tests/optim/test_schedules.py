"""Learning rates over the steps of a run."""

import chex
import numpy as np

from jaxcnn.config import OptimizerConfig
from jaxcnn.optim.schedules import make_schedule


def rates(total_steps, **fields):
    """Return the rate at each step, with two steps per epoch."""
    config = OptimizerConfig(learning_rate=8.0, **fields)
    schedule = make_schedule(config, steps_per_epoch=2, total_steps=total_steps)
    return [float(schedule(step)) for step in range(total_steps)]


def test_make_schedule_by_hand():
    assert rates(3) == [8, 8, 8]
    steps = ((1.0, 0.5), (2.5, 0.25))
    assert rates(6, schedule="steps", rate_steps=steps) == [8, 8, 4, 4, 4, 2]
    assert rates(4, schedule="linear") == [8, 6, 4, 2]
    cosine = [8, 4 + 4 * np.cos(np.pi / 4), 4, 4 - 4 * np.cos(np.pi / 4)]
    chex.assert_trees_all_close(rates(4, schedule="cosine"), cosine, rtol=1e-6)


def test_make_schedule_after_a_warm_up():
    assert rates(5, warmup_epochs=1.0) == [0, 4, 8, 8, 8]
    assert rates(6, warmup_epochs=1.0, schedule="linear") == [0, 4, 8, 6, 4, 2]
    cosine = rates(4, warmup_epochs=1.0, schedule="cosine")
    chex.assert_trees_all_close(cosine, [0.0, 4.0, 8.0, 4.0], rtol=1e-6)
    steps = ((1.5, 0.5),)
    assert rates(5, warmup_epochs=1.0, schedule="steps", rate_steps=steps) == [0, 4, 8, 4, 4]
