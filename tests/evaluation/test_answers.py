"""Answers for many files: how they are found, printed, drawn and streamed."""

import csv
import io
import json
import os

import numpy as np
import pytest
from helpers import run_python
from PIL import Image

import jaxcnn
from jaxcnn import UserError
from jaxcnn.data import datasets
from jaxcnn.errors import RunError
from jaxcnn.evaluation import answers


@pytest.fixture(scope="module")
def classifier():
    return jaxcnn.load(pretrained="lenet5-mnist")


@pytest.fixture
def scans(tmp_path):
    """Three digits, one of them in a sub-folder, and two files that are none."""
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    images = datasets.load("mnist5k").test_images
    for name, row in {"2.png": 2, "7.png": 7, "more/4.png": 4}.items():
        Image.fromarray(images[row, ..., 0]).save(folder / name)
    (folder / "3.png").write_text("no image")
    (folder / "notes.txt").write_text("no image, and without the extension of one")
    return folder


def test_find_images_takes_files_folders_patterns_and_lists(scans, monkeypatch):
    def found(*arguments):
        paths = answers.find_images([str(argument) for argument in arguments])
        return [path.removeprefix(f"{scans}/") for path in paths if isinstance(path, str)]

    assert found(scans) == ["2.png", "3.png", "7.png", "more/4.png"]
    assert found(scans / "7.png", scans / "notes.txt") == ["7.png", "notes.txt"]
    assert found(scans / "[27].png") == ["2.png", "7.png"]
    assert found(scans / "**" / "4.*") == ["more/4.png"]
    assert found(scans / "**") == ["2.png", "3.png", "7.png", "more/4.png", "notes.txt"]
    assert found(scans / "m*") == ["more/4.png"]
    (scans / "a[1].png").touch()
    assert found(scans / "a[1].png") == ["a[1].png"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{scans}/2.png\n\n{scans}/a b.png\r\n"))
    assert found("-") == ["2.png", "a b.png"]


@pytest.mark.parametrize("stdin", [None, io.StringIO("\n")])  # closed, as by `<&-`, and empty
def test_find_images_says_that_standard_input_names_none(monkeypatch, stdin):
    monkeypatch.setattr("sys.stdin", stdin)
    [answer] = answers.find_images(["-"])
    assert "standard input names no image" in str(answer.error)


def test_find_images_says_which_argument_has_no_images(tmp_path):
    (tmp_path / "empty" / "notes").mkdir(parents=True)
    arguments = [str(tmp_path / name) for name in ("empty", "x*.png", "missing.png")]
    empty, pattern, missing = answers.find_images(arguments)
    assert "empty is a folder without images" in str(empty.error)
    assert f"no file matches {tmp_path}/x*.png" in str(pattern.error)
    assert missing == arguments[2]  # an image that cannot be read


def run(classifier, scans, capsys, **options):
    with pytest.raises(RunError, match="1 of 4 images have no answer"):
        answers.answer_files(classifier, [str(scans)], **options)
    output, error = capsys.readouterr()
    assert error.count("\n") == 1 and f"error: {scans}/3.png is a bad image" in error
    return output


def test_answer_files_prints_a_line_for_each_image(classifier, scans, capsys):
    lines = run(classifier, scans, capsys, top=2).splitlines()
    assert [line.split()[0] for line in lines] == ["2", "7", "4"]
    assert [len(line.split()) for line in lines] == [5, 5, 5]
    assert lines[2].endswith(f"  {scans}/more/4.png")


def test_answer_files_prints_json(classifier, scans, capsys):
    output = run(classifier, scans, capsys, form="json", top=99)
    two, bad, _, four = map(json.loads, output.splitlines())
    assert two["file"] == f"{scans}/2.png" and two["answers"][0]["class"] == "2"
    assert len(two["answers"]) == 10
    assert sum(a["probability"] for a in two["answers"]) == pytest.approx(1, abs=1e-4)
    assert bad.keys() == {"file", "error"} and "3.png is a bad image" in bad["error"]
    assert four["answers"][0]["probability"] > 0.5


def test_answer_files_prints_csv(classifier, scans, capsys):
    output = run(classifier, scans, capsys, form="csv", top=2)
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["class_1"] for row in rows] == ["2", "", "7", "4"]
    assert "bad image" in rows[1]["error"] and float(rows[0]["probability_1"]) > 0.5


def test_answer_files_prints_names_of_any_bytes(classifier, tmp_path, capsys):
    odd = [b"a,b", b'q"', b"new\nline", b"cr\rx", b"esc\x1b[31m", b"\xff\xfe", "\u00fc".encode()]
    paths = [os.path.join(tmp_path, os.fsdecode(name + b".png")) for name in sorted(odd)]
    Image.new("L", (28, 28)).save(paths[0])
    for path in paths[1:]:
        os.link(paths[0], path)
    for form in ("table", "json", "csv"):
        answers.answer_files(classifier, [str(tmp_path)], form=form, prepare="none")
        output = capsys.readouterr().out
        if form == "table":
            assert len(output.splitlines()) == len(odd) and "\x1b" not in output
        elif form == "json":
            assert {json.loads(line)["file"] for line in output.splitlines()} == {*paths}
        else:
            output.encode()  # no lone surrogates
            rows = csv.DictReader(io.StringIO(output, newline=""), strict=True)
            names = {os.path.basename(row["file"])[:-4] for row in rows}
            expected = {os.fsdecode(name) for name in odd if name[0] < 128}
            assert names == expected | {"\\xff\\xfe", "\u00fc"}


def test_answer_files_reads_12_bit_images_as_training_does(tmp_path, capsys):
    ramp = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28) * 5
    Image.fromarray(ramp).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    unknown = jaxcnn.load(pretrained="lenet5-mnist")
    with pytest.raises(RunError, match="1 of 1 images have no answer"):
        answers.answer_files(unknown, [path])
    assert "set --max-value" in capsys.readouterr().err
    classifier = jaxcnn.load(pretrained="lenet5-mnist", max_value=4095)
    (answer,) = classifier.stream([path], prepare="none")
    np.testing.assert_array_equal(answer.image[..., 0], ramp // 16)
    answers.answer_files(classifier, [path], prepare="none", figure=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    for value in (0, -1, float("nan")):
        with pytest.raises(UserError, match="`max_value` is .*; expected a positive number"):
            jaxcnn.load(pretrained="lenet5-mnist", max_value=value)


def test_answer_files_draws_contact_sheets(classifier, scans, capsys, tmp_path):
    figure, prepared = tmp_path / "figure.png", tmp_path / "prepared.png"
    run(classifier, scans, capsys, figure=figure, show_prepared=prepared)
    for path in (figure, prepared):
        with Image.open(path) as picture:
            assert min(picture.size) > 200


def test_answer_files_refuses_a_bad_image(classifier, scans, capsys):
    with pytest.raises(UserError, match=f"{scans}/3.png is a bad image"):
        answers.answer_files(classifier, [str(scans)], on_bad_image="refuse")
    with pytest.raises(UserError, match="`top` is 0; expected at least 1"):
        answers.answer_files(classifier, [str(scans)], top=0)


def test_answers_are_imported_without_what_only_runs_need():
    run_python(
        "import sys, jaxcnn.evaluation.answers\n"
        "heavy = {'orbax', 'grain', 'tensorflow_datasets', 'matplotlib', 'torch', 'pandas'}\n"
        "assert not heavy & {*sys.modules}, heavy & {*sys.modules}"
    )


@pytest.mark.slow
def test_answer_files_needs_no_more_memory_for_more_images(classifier, scans, tmp_path):
    resource = pytest.importorskip("resource")

    def peak(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            os.link(scans / "2.png", folder / f"{i}.png")
        with (tmp_path / "out").open("w") as out, pytest.MonkeyPatch.context() as m:
            m.setattr("sys.stdout", out)
            answers.answer_files(classifier, [str(folder)])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    few = peak(300)
    assert peak(3_000) - few < 2**13  # KiB
