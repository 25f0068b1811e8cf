"""Claims about these networks, each measured over seeds: `run_study` and `compare`."""

from typing import Any


def __getattr__(name: str) -> Any:  # late, because listing the studies needs no jax
    if name in ("compare", "run_study"):
        from jaxcnn.studies import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
