"""Two CPU devices, strict rank promotion, quick compilation, and caches of the tests' own."""

import os
import tempfile

# A cache of our own, inherited by the processes that tests start. Set before jaxcnn is imported.
os.environ["JAXCNN_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxcnn-test-cache-")
os.environ.setdefault("MPLBACKEND", "agg")
# LLVM takes a fifth of the time with its optimizations. XLA_FLAGS set to nothing has them.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
