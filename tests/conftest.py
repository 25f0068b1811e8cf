"""Two CPU devices, strict rank promotion, and caches that no test shares with the user."""

import os
import tempfile

# A cache of our own, inherited by the processes that tests start. Set before jaxcnn is imported.
os.environ["JAXCNN_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxcnn-test-cache-")
os.environ.setdefault("MPLBACKEND", "agg")

import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
