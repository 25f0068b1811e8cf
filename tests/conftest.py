"""Two CPU devices, strict rank promotion, quick compilation, and caches of the tests' own."""

import os
import tempfile

# A cache of our own, inherited by the processes that tests start. Set before jaxcnn is imported.
os.environ["JAXCNN_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxcnn-test-cache-")
os.environ.setdefault("MPLBACKEND", "agg")
# LLVM's optimizations are a fifth of the suite's time; XLA_FLAGS set to nothing brings them back.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
