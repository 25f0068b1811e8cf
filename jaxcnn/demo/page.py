"""One HTML file with a trained network inside: draw a digit and look at every layer."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxcnn.data.preprocess import evaluation_preprocess
from jaxcnn.demo.describe import describe, encode
from jaxcnn.demo.gallery import Gallery, choose_gallery
from jaxcnn.evaluation.inputs import DIGITS
from jaxcnn.evaluation.predict import Classifier
from jaxcnn.interop.pretrained import cards
from jaxcnn.interop.trained import Trained
from jaxcnn.models.lenet_1998 import LeNet1998

FOLDER = importlib.resources.files("jaxcnn") / "demo"

# Each file may import from those before it.
SCRIPTS = (
    *(
        "dom.js",
        "colours.js",
        "pools.js",
        "network.js",
        "digit.js",
        "pad.js",
        "layers.js",
        "inspect.js",
    ),
    *("answer.js", "gallery.js", "controls.js", "app.js"),
)


def build_page(trained: Trained, *, gallery: Gallery | None = None) -> str:
    """Return the page of a network as HTML; it needs no other file and no connection.

    Args:
      trained: a network of LeNet's family for 28x28 grey pixels, with any elementwise activation
        and with average, max, min or lp pooling or a function of `layers.subsampling`.
      gallery: images to choose from; by default those of `choose_gallery`.

    Raises:
      UserError: the page cannot compute the network; the message says why.
    """
    description = describe(trained)
    if gallery is None:
        gallery = choose_gallery(Classifier(trained, views=1))
    network = {
        "name": trained.name.rstrip("/").rpartition("/")[2],
        "facts": _facts(trained),
        "class_names": trained.info.class_names,
        "prepare": trained.config.dataset in DIGITS,
        **description,
        "gallery": _describe_gallery(trained, gallery),
    }
    return _assemble(f"Inside LeNet-5: {network['name']}", network)


def as_iframe(page: str, *, height: int = 900) -> str:
    """Return a page as an inline frame, for the output of a notebook.

    Args:
      page: HTML of a whole page.
      height: height of the frame in pixels.
    """
    frame = (
        f'<iframe srcdoc="{html.escape(page)}" title="Inside LeNet-5" '
        f'style="width: 100%; height: {height}px; border: 0"></iframe>'
    )
    return f"<div>{frame}</div>"  # IPython advises against a bare frame, because it expects a URL


def network_outputs(trained: Trained, images: UInt8[np.ndarray, "images 28 28 1"]) -> np.ndarray:
    """Return the network's outputs for raw images, computed by JAX in float32."""
    config, model = trained.config, trained.model
    preprocess = evaluation_preprocess(config.transforms, config.pixel_mean, config.pixel_std)
    apply = jax.jit(model.clone(dtype=jnp.float32).apply)
    with jax.default_matmul_precision("highest"):  # a TPU multiplies in bfloat16 by default
        return np.asarray(apply({"params": trained.params}, preprocess(jnp.asarray(images))))


def _facts(trained: Trained) -> str:
    kind = "LeNet-5 of 1998" if isinstance(trained.model, LeNet1998) else trained.config.model
    facts = [f"{kind}, trained on {trained.config.dataset.rpartition('/')[2]}"]
    card = cards().get(trained.name)
    if card:
        facts.append(f"{card['test_accuracy']:.2%} of {card['num_test_examples']:,} test images")
    return ", ".join(facts)


def _describe_gallery(trained: Trained, gallery: Gallery) -> dict[str, Any]:
    """Return the images as base64, with JAX's outputs, by which the page checks its arithmetic."""
    outputs = network_outputs(trained, gallery.images) if len(gallery.images) else np.zeros(0)
    return {
        "images": base64.b64encode(gallery.images.tobytes()).decode(),
        "labels": gallery.labels.tolist(),
        "num_hard": gallery.num_hard,
        "outputs": encode(outputs),
    }


def _assemble(title: str, network: dict[str, Any]) -> str:
    style = _asset("style.css")
    code = "\n".join(_script(name) for name in SCRIPTS)
    # The browser itself refuses every request, and any code or style but these.
    policy = (
        f"default-src 'none'; script-src {_digest(code)}; style-src {_digest(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    # In JSON a "<" is inside a string, so "</script>" cannot end the element.
    data = json.dumps(network, ensure_ascii=True).replace("<", "\\u003c")
    parts = {
        "POLICY": html.escape(policy),
        "TITLE": html.escape(title),
        "STYLE": style,
        "NETWORK": data,
        "CODE": code,
    }
    template = _asset("template.html")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _script(name: str) -> str:
    """Return a module's text as a part of the one script of the page: no imports and exports."""
    text = _asset(name)
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
    return f"// {name}\n{re.sub(r'^export ', '', text, flags=re.MULTILINE)}"


def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
