import pathlib
import subprocess
import sys

import pytest

from jaxcnn.commands.summary import summary
from jaxcnn.errors import UserError
from jaxcnn.models import IMAGE_SHAPES, MODELS

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "summary.py"


def test_script_has_an_image_shape_for_every_model():
    assert MODELS.keys() <= IMAGE_SHAPES.keys()


def run(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_script_prints_a_table_and_draws_a_figure(tmp_path):
    done = run("lenet5-1998", "--figure", tmp_path / "lenet.png")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "1,516 ✓" in done.stdout
    assert (tmp_path / "lenet.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "lenet5-1989"}, "no model is called 'lenet5-1989'; did you mean lenet5-1998"),
        ({"model": "lenet5-1998", "num_classes": 7}, "num_classes is 7; expected 10 for LeNet1998"),
        ({"model": "lenet5", "num_classes": 0}, "`num_classes` is 0; expected 1 to"),
        ({"model": "lenet5", "figure": pathlib.Path("")}, "`figure` is '.', a folder; name a file"),
        (
            {"model": "lenet5", "figure": pathlib.Path("no/a.png")},
            "`figure` is 'no/a.png'; create the folder 'no'",
        ),
    ],
)
def test_script_refuses(arguments, message):
    with pytest.raises(UserError, match=message):
        summary(**arguments)


def test_script_compares_with_published_figures_for_their_number_of_classes_only(capsys):
    summary("alexnet-2012", num_classes=10)
    assert "✓" not in capsys.readouterr().out


def test_script_names_the_missing_image_shape_of_a_model(monkeypatch):
    monkeypatch.setitem(MODELS, "mine", MODELS["lenet5"])
    with pytest.raises(UserError, match="mine has no image shape; add its entry to IMAGE_SHAPES"):
        summary("mine")
