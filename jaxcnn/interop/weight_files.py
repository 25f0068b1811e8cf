"""Files of weights: safetensors, and PyTorch's zip files and pickles; no pickle is executed."""

from __future__ import annotations

import importlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy

from jaxcnn import report
from jaxcnn.errors import UserError
from jaxcnn.files import write_atomically

EXTENSIONS = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt", ".bin")

# Keys under which training scripts keep a state_dict(), the first that is present is read.
_KEYS = ("state_dict", "model_state_dict", "model", "net", "ema")


def is_weight_file(path: Path) -> bool:
    """Return whether a name has one of EXTENSIONS, in lower or upper case."""
    return path.name.lower().endswith(EXTENSIONS)


def read_weights(path: Path) -> dict[str, Any]:
    """Read a weights file: names to arrays.

    Every format except safetensors needs PyTorch. Its pickles are read with `weights_only`, and
    classes other than PyTorch's become inert objects: nothing in the file is executed. The
    `state_dict()` may be the whole content or the value of a key such as "state_dict", "model" or
    "ema"; the key is printed and other keys are ignored. bfloat16 becomes float32.

    Raises:
      UserError: the extension is unknown, the file is missing or corrupt, it holds no dict of
        tensors, or PyTorch is needed and missing.
    """
    _check_extension(path)
    torch = None if _is_safetensors(path) else _import_torch(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    with file:
        try:
            # `load` of bytes does not read bfloat16; `load_file` does.
            content = _load_pth(torch, file) if torch else safetensors.numpy.load_file(path)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path} is refused: it is corrupt, or it holds Python objects, which may run code "
                f"when they are read ({_first_line(error)}); save the model's state_dict() alone"
            ) from None
        except Exception as error:  # damage surfaces as many types
            raise UserError(
                f"{path} is corrupt or no {path.suffix} file ({_first_line(error)})"
            ) from None
    return dict(_state_dict(content, path))


def write_weights(path: Path, entries: Mapping[str, np.ndarray]) -> None:
    """Write names and arrays to a weights file; formats other than safetensors need PyTorch.

    An existing file is replaced by the complete new one, or stays.

    Raises:
      UserError: the extension is unknown, the file cannot be written, or PyTorch is needed and
        missing.
    """
    _check_extension(path)
    if _is_safetensors(path):
        # safetensors 0.5 writes an array as it lies in memory, whatever its order.
        data = safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in entries.items()})
    else:
        torch, buffer = _import_torch(path), io.BytesIO()
        torch.save({name: torch.tensor(array) for name, array in entries.items()}, buffer)
        data = buffer.getvalue()
    try:
        write_atomically(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


class _Inert:
    """The object that replaces an instance of an unknown class; it ignores everything."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _load_pth(torch: Any, file: BinaryIO) -> Any:
    unknown = []
    if zipfile.is_zipfile(file):
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():  # PyTorch does not compare the CRCs
                raise ValueError(f"the CRC-32 of {damaged} does not match")
        file.seek(0)
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    file.seek(0)
    with (
        warnings.catch_warnings(),
        torch.serialization.safe_globals([(_Inert, name) for name in unknown]),
    ):
        warnings.simplefilter("ignore")  # about an unusual pickle: it is read or refused
        content = torch.load(file, weights_only=True, map_location="cpu")
    return _to_numpy(content, torch)


def _to_numpy(content: Any, torch: Any) -> Any:
    """Convert the tensors in nested mappings."""
    if isinstance(content, Mapping):
        return {name: _to_numpy(value, torch) for name, value in content.items()}
    if not isinstance(content, torch.Tensor):
        return content
    tensor = content.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _state_dict(content: Any, path: Path) -> Mapping[str, Any]:
    """Return the mapping of names to arrays inside of nested mappings."""
    keys: list[str] = []
    while isinstance(content, Mapping) and not any(
        isinstance(value, np.ndarray) and value.ndim for value in content.values()
    ):
        present = [key for key in _KEYS if isinstance(content.get(key), Mapping | _Inert)]
        if not present:
            break
        keys.append(present[0])
        content = content[present[0]]
    if isinstance(content, _Inert) or (
        isinstance(content, Mapping) and any(isinstance(v, _Inert) for v in content.values())
    ):
        raise UserError(
            f"{path} is refused: it holds Python objects, which may run code when they are read; "
            "expected tensors; save the model's state_dict() alone"
        )
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a state_dict()")
    if keys:
        report.say(f"{path}: reading the weights under {' > '.join(map(repr, keys))}")
    return content


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _check_extension(path: Path) -> None:
    if not is_weight_file(path):
        raise UserError(
            f"{path} has no extension of a weights file; expected {', '.join(EXTENSIONS)}"
        )


def _import_torch(path: Path) -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise UserError(
            f"{path} needs PyTorch, which is not installed; install it with "
            "pip install -e '.[torch]', or use a .safetensors file"
        ) from None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
