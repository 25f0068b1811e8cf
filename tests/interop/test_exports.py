"""The command and the options of an export."""

import sys

import pytest
from helpers import random_network

from jaxcnn.commands.convert import main, with_direction
from jaxcnn.data.transforms import RandomCrop
from jaxcnn.errors import UserError
from jaxcnn.interop.exports import export


@pytest.mark.parametrize(
    ("line", "direction"),
    [
        ("run net.onnx", "export"),
        ("run net.pth --step 5", "export"),
        ("--step 5 run net.pth", "export"),
        ("net.PTH run", "import"),
        ("--data-dir folder net.pth run", "import"),
        ("--data-dir=folder net.pth run", "import"),
        ("net.safetensors --pretrained lenet5-mnist", "export"),
        ("--pretrained=lenet5-mnist net.safetensors", "export"),
        ("folder.pth net.pth", "export"),
        ("net.pth run --transforms resize:size=224 flip", "import"),
    ],
)
def test_direction_of_the_earlier_form(line, direction, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.pth").mkdir()
    assert with_direction(line.split()) == [direction, *line.split()]


@pytest.mark.parametrize("line", ["", "--help", "export run net.pth", "import net.pth run"])
def test_direction_that_is_given_stays(line):
    assert with_direction(line.split()) == line.split()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("net.h5", {}, "h5'; expected a name that ends in .safetensors, .pth"),
        ("net", {}, "expected a name that ends in"),
        ("folder.onnx", {}, "is a folder; expected a file to write"),
        ("net.pth", {"input": "uint8", "views": 1}, "has no place for `input`, `views`"),
        ("net.onnx", {"params": "beside"}, "net.onnx has no place for `params`"),
        ("net.onnx", {"input": "preprocessed", "views": 2}, "but preprocessed images have one"),
        ("net.stablehlo", {"views": 10}, "10 views are parts of an image"),
        ("no/net.stablehlo", {}, "cannot write .*no/net.stablehlo"),
    ],
)
def test_export_refuses(name, options, message, tmp_path, monkeypatch):
    (tmp_path / "folder.onnx").mkdir()
    monkeypatch.setattr("jaxcnn.interop.exports.to_stablehlo", lambda *_, **__: b"program")
    with pytest.raises(UserError, match=message):
        export(random_network("lenet5"), tmp_path / name, {}, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


@pytest.mark.parametrize(
    "line",
    ["export --pretrained lenet5-mnist net.stablehlo", "net.stablehlo --pretrained lenet5-mnist"],
)
def test_convert_exports_what_the_package_ships(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxcnn.interop.exports.to_stablehlo", lambda *_, **__: b"program")
    monkeypatch.setattr(sys, "argv", ["convert.py", *line.split()])
    main()
    assert capsys.readouterr().out == "Written: net.stablehlo, the network of lenet5-mnist\n"
    assert (tmp_path / "net.stablehlo").read_bytes() == b"program"


@pytest.mark.parametrize(
    ("options", "views"), [({}, 5), ({"views": 1}, 1), ({"input": "preprocessed"}, 1)]
)
def test_export_averages_the_views_of_the_run(options, views, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "jaxcnn.interop.exports.to_stablehlo", lambda _, **them: given.update(them) or b"program"
    )
    fields = {"image_shape": (32, 32, 1), "transforms": (RandomCrop(28),), "eval_views": 5}
    export(random_network("lenet5", **fields), tmp_path / "net.stablehlo", {}, **options)
    assert given["views"] == views and given["input"] == options.get("input", "uint8")
    assert (tmp_path / "net.stablehlo").read_bytes() == b"program"
