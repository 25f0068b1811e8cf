"""Parameters with PyTorch's names and layouts.

PyTorch stores a convolution's weight as [out, in, height, width] and a linear layer's as [out, in];
Flax stores kernels as [height, width, in, out] and [in, out]. AlexNet flattens 6x6 maps before fc6:
along a column of PyTorch's weight the channels vary slowest, along a row of our kernel fastest.

The notebook's LeNet-5 ends in a softmax, which has no parameters and does not change the argmax, so
its weights give the same predictions here.

References:
  torchvision/models/alexnet.py, for the names of AlexNet; the course notebook, for LeNet-5's.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jaxcnn import report
from jaxcnn.errors import UserError, lookup
from jaxcnn.models.variants import base_name

Params = dict[str, dict[str, np.ndarray]]  # layer -> "kernel" and "bias"

_LENET5 = {"C1": "conv1", "C3": "conv2", "C5": "conv3", "F6": "fc1", "output": "fc2"}
_ALEXNET = {
    **{"conv1": "features.0", "conv2": "features.3", "conv3": "features.6"},
    **{"conv4": "features.8", "conv5": "features.10"},
    **{"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"},
}

# Model -> layer here -> layer in PyTorch, in PyTorch's order.
TORCH_NAMES = {
    **dict.fromkeys(("lenet5", "lenet5-tanh", "lenet5-relu"), _LENET5),
    "alexnet": _ALEXNET,
}

_FLATTENED = {"fc6": (6, 6)}  # height and width of the maps that a dense layer sees flattened

_WRAPPERS = ("module", "_orig_mod")

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
    for layer, name in lookup("convertible model", base_name(model), TORCH_NAMES).items():
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

    float16, bfloat16 and float64 become float32. Names may carry what wrappers add to them; see
    `unwrapped`.

    Args:
      model: a name in TORCH_NAMES.
      entries: PyTorch's name -> array.
      like: parameters of the model here, or their shapes; they decide the number of classes.

    Returns:
      Parameters with `like`'s structure and shapes, in float32.

    Raises:
      UserError: the model is not in TORCH_NAMES; several networks fit; an entry is missing,
        unexpected, of another shape, not floating point, or not finite in float32. One message
        names them all.
    """
    names = lookup("convertible model", base_name(model), TORCH_NAMES)
    expected: dict[str, tuple[int, ...]] = {}
    for layer, name in names.items():
        *window, num_in, num_out = like[layer]["kernel"].shape
        expected |= {f"{name}.weight": (num_out, num_in, *window), f"{name}.bias": (num_out,)}
    entries = unwrapped(entries, expected)
    _check_entries(model, entries, expected)

    params: Params = {}
    for layer, name in names.items():
        weight, bias = (_float32(entries[f"{name}.{part}"]) for part in ("weight", "bias"))
        if layer in _FLATTENED:
            weight = weight.reshape(len(weight), -1, *_FLATTENED[layer])
        kernel = np.array(np.moveaxis(weight, (0, 1), (-1, -2)), order="C")
        params[layer] = {
            "kernel": kernel.reshape(like[layer]["kernel"].shape),
            "bias": np.array(bias),  # a copy, as the kernels are: no view of the caller's arrays
        }
    return params


def unwrapped(entries: Mapping[str, Any], expected: Collection[str]) -> dict[str, Any]:
    """Return the entries of a network without the prefixes of its wrappers; print what is removed.

    `module` (DataParallel, AveragedModel) and `_orig_mod` (torch.compile) are removed wherever they
    stand in a name, and AveragedModel's counter is ignored. A prefix such as `model.` (Lightning)
    is removed if expected names follow it; entries without it belong to other modules and are
    ignored.

    Args:
      entries: PyTorch's name -> array.
      expected: names in the network's own `state_dict()`.

    Raises:
      UserError: two entries have the same name without wrappers, or each of several prefixes is
        followed by all expected names.
    """
    renamed: dict[str, Any] = {}
    removed = set()
    for name, value in entries.items():
        if name == "n_averaged":
            continue
        parts = str(name).split(".")
        removed |= {f"{part}." for part in parts if part in _WRAPPERS}
        short = ".".join(part for part in parts if part not in _WRAPPERS)
        if short in renamed:
            raise UserError(
                f"these weights hold {short} twice, once as {name}; expected one network; "
                "save one of the two alone"
            )
        renamed[short] = value
    prefix = _prefix(renamed, expected)
    if prefix:
        removed.add(prefix)
        ignored = [name for name in renamed if not name.startswith(prefix)]
        if ignored:
            report.say(f"Ignored, because they lack the prefix {prefix}: {_shortlist(ignored)}")
        renamed = {
            name.removeprefix(prefix): value
            for name, value in renamed.items()
            if name.startswith(prefix)
        }
    if removed:
        report.say(f"Removed from the names of the weights: {', '.join(sorted(removed))}")
    return renamed


def _prefix(names: Collection[str], expected: Collection[str]) -> str:
    """Return the prefix, such as "model.", that most of the expected names follow."""
    counts = collections.Counter(
        name.removesuffix(own)
        for own in expected
        for name in names
        if name == own or name.endswith(f".{own}")
    )
    whole = [prefix for prefix, count in counts.items() if count == len(expected)]
    if len(whole) > 1:
        raise UserError(
            f"these weights hold {len(whole)} networks, with the prefixes "
            f"{', '.join(map(repr, whole))}; expected one; save one of them alone"
        )
    return counts.most_common(1)[0][0] if counts else ""


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
        raise UserError(f"these weights do not fit {model}: {'; '.join(problems)}")


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype in _FLOATS


def _description(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        return array.astype(np.float32, copy=False)


def _shortlist(names: list[str]) -> str:
    more = f" and {len(names) - 5} others" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
