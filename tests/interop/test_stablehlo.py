"""StableHLO programs: JAX gives the network's answers, without the package."""

import json
import pathlib
import re
import subprocess
import sys

import jax.export
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from helpers import assert_close, photographs, random_network

from jaxcnn.data import datasets
from jaxcnn.data.transforms import CenterCrop, Deslant, RandomCrop, Resize
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predict import Classifier
from jaxcnn.interop.exports import export
from jaxcnn.interop.pretrained import cards, load_pretrained
from jaxcnn.interop.stablehlo import to_stablehlo
from jaxcnn.models import MODELS

pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers to write and read programs")

ROOT = pathlib.Path(__file__).parents[2]


def load(data):
    return jax.export.deserialize(bytearray(data))


def assert_same_answers(trained, num_images=16):
    images = photographs(num_images, trained.info.image_shape)
    data = to_stablehlo(trained, views=trained.config.eval_views)
    assert str(ROOT).encode() not in data  # no path of this machine
    program = load(data)
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert not program.disabled_safety_checks
    expected = Classifier(trained).log_probs(images)
    for size in (1, num_images):
        assert_close(program.call(images[:size]), expected[:size])


def test_stablehlo_gives_the_answers_of_the_classifier():
    transforms = (Resize(32), RandomCrop(26), Deslant(), CenterCrop(28))
    fields = {"image_shape": (31, 41, 1), "eval_views": 10, "eval_batch_size": 160}
    assert_same_answers(random_network("lenet5", transforms=transforms, **fields))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_stablehlo_gives_the_answers_of_the_classifier_for_every_network(name):
    assert_same_answers(random_network(name))


def test_stablehlo_reads_its_parameters_beside_it(tmp_path):
    trained = random_network("lenet5-modern")
    card = {"test_accuracy": 0.9}
    options = {"params": "beside", "input": "preprocessed", "output": "probabilities"}
    export(trained, tmp_path / "net.stablehlo", card, **options)
    params = safetensors.numpy.load_file(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(params["C1.kernel"], trained.params["C1"]["kernel"])
    with safetensors.safe_open(tmp_path / "net.safetensors", framework="numpy") as file:
        metadata = {name: json.loads(text) for name, text in file.metadata().items()}
    assert metadata == {"class_names": list("abcdefghij"), "card": card}

    data = (tmp_path / "net.stablehlo").read_bytes()
    assert len(data) < 30_000  # without the 300,000 bytes of the parameters
    images = photographs(8, (28, 28, 1))
    classifier = Classifier(trained)
    probabilities = load(data).call(params, np.asarray(classifier.preprocess(images)))
    assert_close(probabilities, np.exp(classifier.log_probs(images)))


WITHOUT_JAXCNN = """
import sys
sys.modules["jaxcnn"] = sys.modules["flax"] = None  # an import of them raises ImportError
{example}
loaded = {{name.split(".")[0] for name, module in sys.modules.items() if module}}
assert not loaded & {{"jaxcnn", "flax"}}
np.save("log_probs.npy", log_probs)
"""


def test_stablehlo_runs_without_the_package_as_the_guide_says(tmp_path):
    page = (ROOT / "docs" / "guides" / "export.md").read_text()
    (example,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
        if "deserialize" in block
    ]
    assert len(example.splitlines()) <= 10
    trained = load_pretrained("lenet5-mnist")
    export(trained, tmp_path / "lenet5.stablehlo", cards()["lenet5-mnist"])
    digits = datasets.load("mnist5k").test_images[:10]
    np.save(tmp_path / "digits.npy", digits)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAXCNN.format(example=example)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_close(np.load(tmp_path / "log_probs.npy"), Classifier(trained).log_probs(digits))


def test_stablehlo_without_flatbuffers_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jaxcnn\[stablehlo\]'"):
        to_stablehlo(random_network("lenet5"))
