"""Parameters with PyTorch's names and layouts, and the files that hold them.

PyTorch stores a convolution's weight as [out, in, height, width] and a linear layer's as [out, in];
Flax stores kernels as [height, width, in, out] and [in, out]. AlexNet flattens 6x6 maps before fc6:
along a column of PyTorch's weight the channels vary slowest, along a row of our kernel fastest.

The notebook's LeNet-5 ends in a softmax, which has no parameters and does not change the argmax, so
its weights give the same predictions here.

References:
  torchvision/models/alexnet.py, for the names of AlexNet; the course notebook, for LeNet-5's.
"""

from __future__ import annotations

import importlib
import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors.numpy

from jaxcnn.errors import UserError, lookup
from jaxcnn.files import write_atomically

EXTENSIONS = (".safetensors", ".pth", ".pt")

Params = dict[str, dict[str, np.ndarray]]  # layer -> "kernel" and "bias"

_LENET5 = {"C1": "conv1", "C3": "conv2", "C5": "conv3", "F6": "fc1", "output": "fc2"}
_ALEXNET = {
    **{"conv1": "features.0", "conv2": "features.3", "conv3": "features.6"},
    **{"conv4": "features.8", "conv5": "features.10"},
    **{"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"},
}

# Model -> our layers, in PyTorch's order -> PyTorch's.
TORCH_NAMES = {
    **dict.fromkeys(("lenet5", "lenet5-tanh", "lenet5-relu", "lenet5-min-pool"), _LENET5),
    "alexnet": _ALEXNET,
}

_FLATTENED = {"fc6": (6, 6)}  # height and width of the maps that a dense layer sees flattened

_FLOATS = tuple(map(np.dtype, (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)))


def to_torch(model: str, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a model's parameters with PyTorch's names, order and layouts.

    Args:
      model: a name in TORCH_NAMES.
      params: layer -> kernel [height, width, in, out] or [in, out], and bias [out].

    Returns:
      New arrays: `<name>.weight` [out, in, height, width] or [out, in], `<name>.bias` [out].

    Raises:
      UserError: the model is not in TORCH_NAMES.
    """
    entries = {}
    for layer, name in lookup("convertible model", model, TORCH_NAMES).items():
        kernel = np.asarray(params[layer]["kernel"])
        *window, num_in, num_out = kernel.shape
        if layer in _FLATTENED:  # as the convolution that it is
            kernel = kernel.reshape(*_FLATTENED[layer], -1, num_out)
        weight = np.array(np.moveaxis(kernel, (-1, -2), (0, 1)), order="C")
        entries[f"{name}.weight"] = weight.reshape(num_out, num_in, *window)
        entries[f"{name}.bias"] = np.array(params[layer]["bias"])
    return entries


def from_torch(model: str, entries: Mapping[str, Any], like: Mapping[str, Any]) -> Params:
    """Return a model's parameters from a PyTorch `state_dict()`: the inverse of `to_torch`.

    float16, bfloat16 and float64 become float32. The prefix `module.` of DataParallel is removed.

    Args:
      model: a name in TORCH_NAMES.
      entries: PyTorch's name -> array.
      like: parameters of the model here, or their shapes; they decide the number of classes.

    Returns:
      Parameters with `like`'s structure and shapes, in float32.

    Raises:
      UserError: the model is not in TORCH_NAMES; an entry is missing, unexpected, of another shape,
        not floating point, or not finite in float32. One message names them all.
    """
    names = lookup("convertible model", model, TORCH_NAMES)
    if all(str(name).startswith("module.") for name in entries):
        entries = {name.removeprefix("module."): value for name, value in entries.items()}
    expected: dict[str, tuple[int, ...]] = {}
    for layer, name in names.items():
        *window, num_in, num_out = like[layer]["kernel"].shape
        expected |= {f"{name}.weight": (num_out, num_in, *window), f"{name}.bias": (num_out,)}
    _check_entries(model, entries, expected)

    params: Params = {}
    for layer, name in names.items():
        weight, bias = (_float32(entries[f"{name}.{part}"]) for part in ("weight", "bias"))
        if layer in _FLATTENED:
            weight = weight.reshape(len(weight), -1, *_FLATTENED[layer])
        kernel = np.array(np.moveaxis(weight, (0, 1), (-1, -2)), order="C")
        params[layer] = {
            "kernel": kernel.reshape(like[layer]["kernel"].shape),
            "bias": np.array(bias),  # as all of these: no view of the caller's
        }
    return params


def read_weights(path: Path) -> dict[str, Any]:
    """Read a weights file: names to arrays.

    `.pth` and `.pt` need PyTorch and are read with `weights_only`: a pickle that would run code is
    refused. The `state_dict` may be the whole content or the value of the key "state_dict"; other
    keys are ignored. bfloat16 becomes float32.

    Raises:
      UserError: the extension is unknown, the file is missing, corrupt or holds more than tensors,
        or PyTorch is needed and missing.
    """
    _check_extension(path)
    torch = None if path.suffix == ".safetensors" else _import_torch(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    with file:
        try:
            # Not from bytes: `safetensors.numpy.load` knows no bfloat16.
            entries = _load_pth(torch, file) if torch else safetensors.numpy.load_file(path)
        except pickle.UnpicklingError:
            raise UserError(
                f"{path} is refused: it is damaged, or holds Python objects, which may run code "
                "when they are read; save the model's state_dict() alone"
            ) from None
        except Exception as error:  # damage surfaces as many types
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"{path} is damaged or no {path.suffix} file ({what})") from None
    if not isinstance(entries, Mapping):
        raise UserError(f"{path} holds a {type(entries).__name__}, expected a state_dict()")
    return dict(entries)


def write_weights(path: Path, entries: Mapping[str, np.ndarray]) -> None:
    """Write names and arrays to a weights file; `.pth` and `.pt` need PyTorch.

    An existing file is replaced by the complete new one, or stays.

    Raises:
      UserError: the extension is unknown, the file cannot be written, or PyTorch is needed and
        missing.
    """
    _check_extension(path)
    if path.suffix == ".safetensors":
        # In C's order: safetensors 0.5 writes another array as it lies, under the same shape.
        data = safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in entries.items()})
    else:
        torch, buffer = _import_torch(path), io.BytesIO()
        torch.save({name: torch.tensor(array) for name, array in entries.items()}, buffer)
        data = buffer.getvalue()
    try:
        write_atomically(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _check_entries(
    model: str, entries: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]
) -> None:
    problems = []
    for name, shape in expected.items():
        wanted = f"expected floating point {list(shape)}"
        value: Any = entries.get(name)
        if name not in entries:
            problems.append(f"{name} is missing, {wanted}")
        elif not (_is_float(value) and value.shape == shape):
            problems.append(f"{name} is {_description(value)}, {wanted}")
        elif not np.isfinite(_float32(value)).all():
            problems.append(f"{name} has values that are not finite in float32")
    for name, value in entries.items():
        if name not in expected:
            problems.append(f"{name} is unexpected, {_description(value)}")
    if problems:
        raise UserError(f"these weights are not of {model}: {'; '.join(problems)}")


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype in _FLOATS


def _description(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # float64 beyond float32: infinite, and refused as such
        return array.astype(np.float32, copy=False)


def _check_extension(path: Path) -> None:
    if path.suffix not in EXTENSIONS:
        raise UserError(f"{path} has no extension of weights: {', '.join(EXTENSIONS)}")


def _import_torch(path: Path) -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise UserError(
            f"{path} takes PyTorch, which is not installed: pip install -e '.[torch]', "
            "or use a .safetensors file"
        ) from None


def _load_pth(torch: Any, file: BinaryIO) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an unusual pickle: it is read or refused
        content = torch.load(file, weights_only=True, map_location="cpu")
    if not isinstance(content, Mapping):
        return content
    entries = content.get("state_dict", content)
    if not isinstance(entries, Mapping):
        return entries

    def to_numpy(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # it has none

    return {name: to_numpy(value) for name, value in entries.items()}
