"""Records are read back as they were written, or an error names the field."""

import dataclasses
import os
import pathlib
from typing import Annotated, Literal, TypedDict

import numpy as np
import pytest

from jaxcnn import records
from jaxcnn.errors import UserError
from jaxcnn.records import Bound


@dataclasses.dataclass(frozen=True)
class Inner:
    kind: Literal["a", 1] = "a"
    pairs: tuple[tuple[str, float], ...] = ()


class Outer(TypedDict):
    count: Annotated[int, Bound(lambda value: value > 0, "above 0")]
    share: float
    name: str | None
    done: bool
    inner: Inner
    by_name: dict[str, int]
    rows: list[list[int]]


GOOD = {
    "count": 1,
    "share": 1,
    "name": None,
    "done": True,
    "inner": {"kind": 1, "pairs": [["x", 0.5]]},
    "by_name": {"a": 2},
    "rows": [[1], []],
}


def test_convert_returns_the_types():
    outer = records.convert(GOOD, Outer)
    assert outer == {**GOOD, "inner": Inner(1, (("x", 0.5),))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "count is 0; expected above 0"),
        ({"count": True}, "count is True; expected a whole number"),
        ({"count": 1.0}, "count is 1.0; expected a whole number"),
        ({"share": "1"}, "share is '1'; expected a number"),
        ({"share": 10**400}, "share is 1000*...; expected a number"),
        ({"name": 5}, "name is 5; expected a text"),
        ({"done": 1}, "done is 1; expected true or false"),
        ({"inner": []}, r"inner is \[\]; expected an object"),
        ({"inner": {"kind": True, "pairs": []}}, "inner.kind is True; expected one of a, 1"),
        ({"inner": {"kind": "a"}}, "inner.pairs is missing"),
        ({"inner": {**GOOD["inner"], "more": 1}}, "inner.more is not a field"),
        (
            {"inner": {"kind": 1, "pairs": [["x"]]}},
            r"inner.pairs\[0\] is \['x'\]; expected 2 values",
        ),
        ({"inner": {"kind": 1, "pairs": "x"}}, "inner.pairs is 'x'; expected a list"),
        ({"by_name": {"a": "b"}}, "by_name.a is 'b'; expected a whole number"),
        ({"rows": [[1], [None]]}, r"rows\[1\]\[0\] is None; expected a whole number"),
        ({"extra": 0}, "extra is not a field of this version of jaxcnn"),
    ],
)
def test_convert_names_the_field_that_is_wrong(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        records.convert({**GOOD, **changes}, Outer)


def test_convert_takes_defaults_for_optional_fields():
    record = {**GOOD, "inner": {"kind": 1}}
    assert records.convert(record, Outer, optional={"inner.pairs"})["inner"] == Inner(1)


def test_dumps_and_read_are_inverse(tmp_path):
    path = tmp_path / "a.json"
    values = {"a": np.int64(3), "b": np.array([0.5]), "c": pathlib.Path("x"), "d": float("inf")}
    path.write_text(records.dumps(values))
    record = records.read(path)
    records.check_seal(record)
    assert records.unsealed(record) == {"a": 3, "b": [0.5], "c": "x", "d": float("inf")}


def test_check_seal_notices_any_change():
    record = records.sealed(records.plain(GOOD))
    for name in GOOD:
        with pytest.raises(UserError, match="differs from its sha256"):
            records.check_seal({**record, name: "other"})
        with pytest.raises(UserError, match="differs from its sha256"):
            records.check_seal({key: value for key, value in record.items() if key != name})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"{" * 100_000])
def test_read_refuses_what_is_not_a_record(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="JSON"):
        records.read(tmp_path / "a.json")


def test_read_refuses_a_fifo_and_a_folder(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(UserError, match="expected a regular file"):
            records.read(path)
    with pytest.raises(FileNotFoundError):
        records.read(tmp_path / "none")
