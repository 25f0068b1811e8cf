"""Claims about these networks, each measured over seeds."""

from jaxcnn.studies.engine import compare, run_study

__all__ = ["compare", "run_study"]
