"""The Colab notebook: executed headless in its short form, and as it is committed."""

import importlib.metadata
import json
import pathlib
import re
import tomllib

import pytest

from jaxcnn import PRESETS

NOTEBOOK = pathlib.Path(__file__).parents[1] / "scripts" / "colab_tpu.ipynb"

# Presses the stop button as soon as a run has logged its first line.
STOP = """
import os, pathlib, signal, threading, time

def stop():
    while not list(pathlib.Path("runs").glob("*/metrics.jsonl")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=stop).start()
"""


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs code cells in a kernel with two devices; every kernel of a test in the same folder."""
    nbclient = pytest.importorskip("nbclient", reason="needs pip install -e '.[test]'")
    pytest.importorskip("ipykernel", reason="needs pip install -e '.[test]'")
    import nbformat

    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")

    def run(*sources):
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
        folder = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, timeout=600, resources=folder).execute()
        return [json.dumps(cell.outputs) for cell in notebook.cells]

    return run


def code_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def sources():
    return ["".join(cell["source"]) for cell in code_cells()]


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(execute):
    outputs = execute(*sources())
    (devices,) = (output for output in outputs if "2 x cpu, jax" in output)
    assert "Runtime > Change runtime type > TPU" in devices
    assert sum("image/png" in output for output in outputs) == 6
    assert not any("stderr" in output for output in outputs)  # no warnings
    assert outputs[-2].count("steps/s") == 3
    assert "<iframe srcdoc=" in outputs[-1]


@pytest.mark.slow
def test_notebook_continues_a_stopped_run_in_a_new_kernel(execute):
    from nbclient.exceptions import CellExecutionError

    training = next(i for i, source in enumerate(sources()) if "train_and_evaluate(" in source)
    *setup, train = sources()[: training + 1]
    with pytest.raises(CellExecutionError, match="Interrupted: stopped by SIGINT at step") as stop:
        execute(*setup, STOP, train)
    assert "Traceback" not in str(stop.value)
    assert "Going on from the checkpoint of step" in execute(*setup, train)[-1]


def test_notebook_says_where_the_project_comes_from():
    first, *others = sources()
    assert first.startswith("PROJECT = ")
    assert not any("PROJECT =" in source for source in others)


def test_notebook_installs_before_it_starts_jax():
    install, start = (
        next(i for i, source in enumerate(sources()) if text in source)
        for text in ("%pip install", "import jax")
    )
    assert install < start  # pip is a fork, and a process with jax's threads should not fork


def test_notebook_batches_divide_over_eight_cores():
    for name in ("lenet5-mnist", "alexnet-cifar10-32"):
        assert any(name in source for source in sources())
        assert PRESETS[name].config.batch_size % 8 == 0


def test_notebook_outputs_are_of_one_run_on_a_cpu():
    notebook = json.loads(NOTEBOOK.read_text())
    assert "are from a CPU, not from a TPU" in "".join(notebook["cells"][0]["source"])
    assert [cell["execution_count"] for cell in code_cells()] == list(range(1, len(sources()) + 1))
    outputs = [output for cell in code_cells() for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert "1 x cpu" in json.dumps(outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    assert "<iframe srcdoc=" in "".join(outputs[-1]["data"]["text/html"])


def test_notebook_is_small_and_holds_no_path():
    assert NOTEBOOK.stat().st_size < 1_000_000
    notebook = json.loads(NOTEBOOK.read_text())
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            for base64 in ("image/png", "text/html"):
                output.get("data", {}).pop(base64, None)
        cell["source"] = ""
    assert not re.search(r"/(home|Users|root|tmp|work|usr|opt|content)\b", json.dumps(notebook))


def test_notebook_names_the_setting_that_is_missing(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    settings, install = (
        next(source for source in sources() if text in source) for text in ("PROJECT =", "%pip")
    )
    with pytest.raises(SystemExit, match="PROJECT still says OWNER; set it in the first code cell"):
        exec(settings + "\n" + install.replace("%pip", "# "), {})


def test_notebook_installs_from_the_repository_of_the_package():
    project = tomllib.loads((NOTEBOOK.parents[1] / "pyproject.toml").read_text())["project"]
    repository = project["urls"]["Repository"]
    assert all(url.startswith(repository) for url in project["urls"].values())
    assert any(f'PROJECT = "git+{repository}"' in source for source in sources())
