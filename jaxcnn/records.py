"""JSON records of a run: sealed with a digest, and checked field by field when they are read."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from jaxcnn.errors import UserError
from jaxcnn.files import open_regular

SEAL = "sha256"  # the field with the digest of all others

MAX_BYTES = 2**26

# Errors of code that reads a record without `convert` if the record has another form.
MISFITS = (KeyError, TypeError, AttributeError, ValueError)

NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


@dataclasses.dataclass(frozen=True)
class Bound:
    """The values that a field may have; stands in the field's `Annotated` type."""

    contains: Callable[[Any], bool]
    text: str


def plain(value: Any) -> Any:
    """Return a record as it is read back from JSON: NumPy's numbers and paths become JSON types.

    Raises:
      TypeError: a value has no form in JSON.
    """
    return json.loads(json.dumps(value, default=_plain))


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of JSON types with the digest of its canonical JSON in the field SEAL."""
    return {**record, SEAL: _digest(record)}


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without its digest."""
    return {name: value for name, value in record.items() if name != SEAL}


def check_seal(record: Mapping[str, Any]) -> None:
    """Compare a record with its digest, if it has one.

    Call it after `convert`, whose errors name a field.

    Raises:
      UserError: the record differs from the one that was sealed.
    """
    if SEAL in record and record[SEAL] != _digest(unsealed(record)):
        raise UserError(f"its content differs from its {SEAL}; a value was changed or lost")


def dumps(record: Mapping[str, Any]) -> str:
    """Return a record as the text of a file, sealed.

    Raises:
      TypeError: a value has no form in JSON.
    """
    return json.dumps(sealed(plain(record)), indent=2) + "\n"


def read(path: Path) -> dict[str, Any]:
    """Return the record in a file, with its digest if it has one.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: the file cannot be read or holds no JSON object; the message says why.
    """
    try:
        with open_regular(path, max_bytes=MAX_BYTES) as file:
            return parse(file.read())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror})") from None


def parse(text: str | bytes) -> dict[str, Any]:
    """Return the record that a JSON text holds, with its digest if it has one.

    Raises:
      UserError: the text is not a JSON object.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 are a ValueError, too
        raise UserError(f"it is not JSON ({error})") from None
    if not isinstance(record, dict):
        raise UserError("it is JSON but not an object")
    return record


@functools.cache  # typing takes a millisecond, and a checkpoint reads several records
def type_hints(kind: Any) -> Mapping[str, Any]:
    """Return the type of each field of a TypedDict or dataclass, with its `Annotated` marks."""
    return types.MappingProxyType(get_type_hints(kind, include_extras=True))


def convert(value: Any, kind: Any, name: str = "", *, optional: Collection[str] = ()) -> Any:
    """Return a JSON value as a type, after a check of every type, bound and field inside it.

    Args:
      value: value of JSON types; tuples may stand for lists.
      kind: type to return. One of Any, bool, int, float, str, Literal, `X | None`, list, tuple,
        dict[str, X], a TypedDict or a dataclass, in any nesting; `Annotated` adds a `Bound`.
      name: dotted name of the value, for the message.
      optional: dotted names of fields of dataclasses that may be missing and take their default.

    Raises:
      UserError: the value is not of that type; the message names the field.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        value = convert(value, args[0], name, optional=optional)
        for mark in args[1:]:
            if isinstance(mark, Bound) and not mark.contains(value):
                raise _misfit(name, value, mark.text)
        return value
    if origin in (Union, types.UnionType):  # of None and one other type
        (other,) = (arg for arg in args if arg is not type(None))
        return None if value is None else convert(value, other, name, optional=optional)
    if origin is Literal:
        if not any(value == arg and type(value) is type(arg) for arg in args):
            raise _misfit(name, value, f"one of {', '.join(map(str, args))}")
        return value
    if origin in (list, tuple):
        return _convert_sequence(value, origin, args, name)
    if origin is dict or is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return _convert_fields(value, kind, name, optional)
    if not _is_scalar(value, kind):
        raise _misfit(name, value, NAMES[kind])
    return float(value) if kind is float else value


def _is_scalar(value: Any, kind: type) -> bool:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return isinstance(float(value), float)
        except OverflowError:
            return False
    return type(value) is kind


def _convert_sequence(value: Any, origin: type, args: tuple[Any, ...], name: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _misfit(name, value, "a list")
    kinds = args
    if origin is list or args[-1] is Ellipsis:
        kinds = args[:1] * len(value)
    if len(kinds) != len(value):
        raise _misfit(name, value, f"{len(kinds)} values")
    items = zip(value, kinds, strict=True)
    return origin(convert(item, kind, f"{name}[{i}]") for i, (item, kind) in enumerate(items))


def _convert_fields(value: Any, kind: Any, name: str, optional: Collection[str]) -> Any:
    if not isinstance(value, dict):
        raise _misfit(name, value, "an object")
    prefix = f"{name}." if name else ""
    if get_origin(kind) is dict:
        of_all = get_args(kind)[1]
        return {field: convert(item, of_all, prefix + field) for field, item in value.items()}
    kinds = type_hints(kind)
    if unknown := value.keys() - kinds.keys():
        raise UserError(
            f"{prefix}{min(unknown)} is not a field of this version of jaxcnn; expected "
            f"{', '.join(kinds)}"
        )
    required = kind.__required_keys__ if is_typeddict(kind) else kinds.keys()
    for field in kinds:
        if field in required and field not in value and prefix + field not in optional:
            raise UserError(f"{prefix}{field} is missing")
    return kind(
        **{
            field: convert(item, kinds[field], prefix + field, optional=optional)
            for field, item in value.items()
        }
    )


def _misfit(name: str, value: Any, expected: str) -> UserError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return UserError(f"{name or 'the record'} is {shown}; expected {expected}")


def _digest(record: dict[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} is not a number, a text or a path")
