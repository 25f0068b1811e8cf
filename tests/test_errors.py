"""Failures that are expected end in one line and a status; bugs keep their traceback."""

import pytest

from jaxcnn.errors import RunError, UserError, one_line_errors


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("--epochs is 0"), 2, "error: --epochs is 0\n"),
        (RunError("the loss is not finite"), 1, "error: the loss is not finite\n"),
        (
            OSError(28, "No space left on device", "a"),
            1,
            "error: [Errno 28] No space left on device: 'a'\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_expected_failure_is_one_line(error, status, said, capsys):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise error
    assert end.value.code == status and capsys.readouterr().err == said


def test_a_bug_is_not_hidden():
    with pytest.raises(KeyError), one_line_errors():
        raise KeyError("x")
