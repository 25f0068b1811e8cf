"""The number of training steps in a chunk, between two synchronizations with the host."""

from __future__ import annotations

# Seconds of a chunk of fast steps. They bound how stale the progress bar is and how long a signal
# waits.
SECONDS = 0.5

# Slow steps: a chunk has this many, if it ends within that many seconds. The operating system maps
# the temporary memory of a program for each chunk again: AlexNet's step of 64 images takes 0.67 s
# in chunks of one and 0.61 in chunks of four.
SLOW_STEPS = 4
SLOW_SECONDS = 2.0


def chunk_steps(step_seconds: float, seconds: float = SECONDS) -> int:
    """Return the number of steps of a chunk, at least 1.

    Args:
      step_seconds: seconds of a step.
      seconds: seconds of a chunk of fast steps.
    """
    slow_steps = min(SLOW_STEPS, int(SLOW_SECONDS / step_seconds))
    return max(1, int(seconds / step_seconds), slow_steps)
