"""The compilation cache mends itself: each case is a process of its own."""

import pytest
from helpers import run_python

PROGRAM = """
import logging, pathlib, sys
import jax
from jaxcnn.distributed.compilation_cache import use_compilation_cache
logging.basicConfig(stream=sys.stdout, format="%(message)s")
use_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
print(jax.jit(lambda x: 2 * x)(1.5))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    run_python(PROGRAM)
    return tmp_path / "xla"


def test_use_compilation_cache_removes_a_damaged_entry(cache):
    (entry,) = cache.glob("jit__lambda*-cache")
    whole = entry.read_bytes()
    entry.write_bytes(whole[:100])
    first, second = run_python(PROGRAM), run_python(PROGRAM)
    assert "a damaged entry of" in first and "jit__lambda compiled again" in first
    assert first.endswith("3.0\n") and second == "3.0\n"
    assert len(entry.read_bytes()) > 100


def test_use_compilation_cache_says_once_that_it_cannot_write(cache):
    for entry in cache.iterdir():
        entry.unlink()
    cache.rmdir()
    cache.symlink_to("/proc/self")  # where nobody may create a file
    out = run_python(PROGRAM + "print(jax.jit(lambda x: 3 * x)(1.5))")
    assert out.count("; programs are compiled at each start") == 1 and out.endswith("4.5\n")
