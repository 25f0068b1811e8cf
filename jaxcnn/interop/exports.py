"""Write a trained network to a file; its extension chooses the format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.numpy

from jaxcnn import report
from jaxcnn.errors import UserError
from jaxcnn.files import write_atomically
from jaxcnn.interop.onnx import to_onnx
from jaxcnn.interop.stablehlo import flat_params, to_stablehlo
from jaxcnn.interop.torch_weights import to_torch
from jaxcnn.interop.trained import Input, Output, Trained, check_views
from jaxcnn.interop.weight_files import EXTENSIONS, is_weight_file, write_weights

PROGRAMS = (".onnx", ".stablehlo")  # with the computation, not the parameters alone


def check_name(file: Path) -> None:
    """Check that a name has an extension of a format, in lower or upper case.

    Raises:
      UserError: the extension is unknown, or the name is that of a folder.
    """
    if not is_weight_file(file) and file.suffix.lower() not in PROGRAMS:
        raise UserError(
            f"the file to write is {str(file)!r}; expected a name that ends in "
            f"{', '.join(EXTENSIONS)}, {' or '.join(PROGRAMS)}"
        )
    if file.is_dir():
        raise UserError(f"{file} is a folder; expected a file to write")


def export(
    trained: Trained,
    file: Path,
    card: Mapping[str, Any],
    *,
    input: Input | None = None,
    output: Output | None = None,
    views: Literal[1, 2, 5, 10] | None = None,
    params: Literal["inside", "beside"] | None = None,
) -> None:
    """Write a trained network: as PyTorch's weights, as an ONNX model or as a StableHLO program.

    Args:
      trained: the network.
      file: file to write or replace.
      card: description of the network, for the formats that have a place for it.
      input: images that the program reads, see `trained.Input`; by default "uint8".
      output: what the program returns, see `trained.Output`; by default "log-probs".
      views: views of each image to average over; by default as in the run, and 1 for preprocessed
        images.
      params: whether the parameters of a StableHLO program are inside of it, the default, or in a
        `.safetensors` file beside it.

    Raises:
      UserError: the extension is unknown, the network or an option does not fit the format, a
        package is missing, or the file cannot be written.
    """
    check_name(file)
    kind = file.suffix.lower()
    given: dict[str, Any] = (
        {"input": input, "output": output, "views": views} if kind not in PROGRAMS else {}
    )
    given |= {"params": params} if kind != ".stablehlo" else {}
    if unused := [f"`{name}`" for name, value in given.items() if value is not None]:
        raise UserError(f"{file} has no place for {', '.join(unused)}; remove the option")
    if kind not in PROGRAMS:
        write_weights(file, to_torch(trained.config.model, trained.params))
        return
    input, output = input or "uint8", output or "log-probs"
    if input == "preprocessed" and (views or 1) > 1:
        raise UserError(f"`views` is {views}, but preprocessed images have one; remove it")
    num_views = 1 if input == "preprocessed" else views or trained.config.eval_views
    check_views(trained, num_views)
    if kind == ".onnx":
        model = to_onnx(trained, card, input=input, output=output, views=num_views)
        _write(file, model.SerializeToString())
        report.say(f"{len(model.graph.node)} nodes, opset {model.opset_import[0].version}")
        return
    if params == "beside":
        metadata = {"class_names": json.dumps(trained.info.class_names), "card": json.dumps(card)}
        data = safetensors.numpy.save(flat_params(trained), metadata)
        _write(file.with_suffix(".safetensors"), data)
    inside = params != "beside"
    program = to_stablehlo(trained, input=input, output=output, views=num_views, with_params=inside)
    _write(file, program)


def _write(file: Path, data: bytes) -> None:
    try:
        write_atomically(file, data)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
