"""Training under settings of JAX that users meet."""

import json

import pytest
from helpers import run_script

STRICT = {
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_DEBUG_NANS": "1",
}


def train_two_epochs(arguments, folder, settings):
    options = [*arguments.split(), "--epochs", 2, "--workdir", folder]
    done = run_script("train.py", *options, **settings)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "result.json").read_text())["steps"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "lenet5-mnist5k --optimizer.schedule cosine --optimizer.warmup-epochs 0.5 --ema-decay 0.9 "
        "--label-smoothing 0.1 --optimizer.accumulate 2",
        "lenet5-modern-mnist --dataset mnist5k --batch-size 1000 --optimizer.warmup-epochs 0",
        "lenet5-1998-mnist --dataset mnist5k --batch-size 1000",
    ],
    ids=["lenet5", "lenet5-modern", "lenet5-1998"],
)
def test_train_runs_under_the_strictest_settings(arguments, tmp_path):
    train_two_epochs(arguments, tmp_path / "run", STRICT)


@pytest.mark.slow
def test_train_runs_without_jit(tmp_path):
    arguments = "lenet5-mnist5k --batch-size 2000"
    train_two_epochs(arguments, tmp_path / "run", {"JAX_DISABLE_JIT": "1"})
