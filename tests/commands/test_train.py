"""The command line of `train`."""

import pytest

from jaxcnn.commands.train import take_preset


@pytest.mark.parametrize(
    ("arguments", "name", "rest"),
    [
        ("", "lenet5-mnist5k", ""),
        ("lenet5-mnist --epochs 2", "lenet5-mnist", "--epochs 2"),
        ("--epochs 2 lenet5-mnist --seed 1", "lenet5-mnist", "--epochs 2 --seed 1"),
        ("--init-from lenet5-mnist", "lenet5-mnist5k", "--init-from lenet5-mnist"),
        ("lenet5 --epochs 2", "lenet5", "--epochs 2"),  # which `lookup` refuses
    ],
)
def test_take_preset_finds_it_before_and_after_flags(arguments, name, rest):
    words = arguments.split()
    assert take_preset(words) == name and words == rest.split()
