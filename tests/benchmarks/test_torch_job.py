"""A run in PyTorch: the recipes it supports, its rate, its initial values, and that it learns."""

import dataclasses
import re

import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.benchmarks import torch_job
from jaxcnn.benchmarks.torch_networks import lenet5_relu
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.transforms import Affine, RandomCrop
from jaxcnn.optim.schedules import make_schedule
from jaxcnn.presets import PRESETS


def test_supports_the_fast_preset_and_nothing_it_does_not_read():
    fast = PRESETS["lenet5-fast-mnist"].config
    assert torch_job.supports(dataclasses.replace(fast, seed=3, workdir="elsewhere"))
    assert torch_job.supports(PRESETS["lenet5-mnist"].config)
    assert not torch_job.supports(PRESETS["lenet5-mnist5k"].config)  # lenet5-tanh
    assert not torch_job.supports(dataclasses.replace(fast, ema_decay=0.9))
    assert not torch_job.supports(dataclasses.replace(fast, transforms=(Affine(degrees=10),)))
    cosine = dataclasses.replace(fast.optimizer, schedule="cosine")
    assert not torch_job.supports(dataclasses.replace(fast, optimizer=cosine))


@pytest.mark.parametrize("schedule", torch_job.SCHEDULES)
def test_rate_equals_that_of_our_schedule(schedule):
    optimizer = OptimizerConfig(learning_rate=0.5, schedule=schedule, warmup_epochs=0.4)
    ours = make_schedule(optimizer, steps_per_epoch=10, total_steps=30)
    rates = [torch_job.rate(optimizer, step, 4, 30) for step in range(30)]
    np.testing.assert_allclose(rates, [ours(step) for step in range(30)], rtol=1e-6)


def test_job_starts_as_linen_does_and_learns(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    model = lenet5_relu(torch)
    torch_job.initialize(torch, model)
    c5 = model[6]
    assert float(c5.weight.detach().std() * 400**0.5) == pytest.approx(1, abs=0.02)
    assert float(c5.weight.detach().abs().max()) <= 2 / 0.8796 / 400**0.5
    assert not c5.bias.any()

    labels = np.arange(160, dtype=np.int32) % 10
    images = np.random.default_rng(0).integers(0, 50, (160, 28, 28, 1), np.uint8)
    images[np.arange(160), 2 * labels + 5] += 200  # a line at a height that depends on the class
    arrays = {"train_images": images, "train_labels": labels}
    np.savez(tmp_path / "data.npz", **arrays, test_images=images, test_labels=labels)
    shifts = (RandomCrop(28, padding=1),)
    config = TrainConfig(model="lenet5-relu", transforms=shifts, batch_size=16, epochs=4)
    (tmp_path / "config.json").write_text(configs.to_json(config))
    torch_job.main(str(tmp_path / "config.json"), str(tmp_path / "data.npz"))
    found = re.fullmatch(r"Test Accuracy: ([\d.]+)%\n", capsys.readouterr().out)
    assert float(found[1]) > 80
