"""Names that are looked up, and fields as flags."""

import ast
import pathlib
import re

import pytest

import jaxcnn
from jaxcnn.errors import RunError, UserError, flag, lookup

TABLE = {"lenet5": 1, "lenet5-tanh": 2, "alexnet": 3}


def test_lookup_returns_the_value():
    assert lookup("model", "lenet5-tanh", TABLE) == 2


@pytest.mark.parametrize(
    ("name", "others", "message"),
    [
        ("lenet5-tan", [], "'lenet5-tan'; did you mean lenet5-tanh or .*? There are lenet5, len"),
        ("vgg", [], "'vgg'; there are lenet5, lenet5-tanh, alexnet$"),
        ("vgg", ["file:PATH"], "there are lenet5, lenet5-tanh, alexnet, file:PATH$"),
    ],
)
def test_lookup_offers_the_nearest_names_and_all(name, others, message):
    with pytest.raises(UserError, match=f"no model is called .*{message}"):
        lookup("model", name, TABLE, others=others)


def test_lookup_lists_a_family_of_names_as_one():
    table = {"mnist": 0, "cifar10_1/v4": 1, "cifar10_1/v6": 2, **{f"c/{i}": i for i in range(9)}}
    with pytest.raises(UserError, match="there are mnist, cifar10_1/v4, cifar10_1/v6, c/...$"):
        lookup("dataset", "x", table)


def test_flag_is_the_field_on_the_command_line():
    assert flag("eval_batch_size") == "--eval-batch-size"
    assert flag("optimizer.learning_rate") == "--optimizer.learning-rate"


def test_errors_have_the_exit_status_of_their_kind():
    assert (UserError.exit_code, RunError.exit_code) == (2, 1)


def test_errors_name_fields_and_not_flags():
    package = pathlib.Path(jaxcnn.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if path.parent.name in ("commands", "benchmarks"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name.endswith(("Error", "Checkpoint")):
                text = " ".join(
                    part.value
                    for part in ast.walk(node)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )
                assert not re.search(r"(^|\W)--[a-z]", text), f"{path}:{node.lineno}: {text}"
