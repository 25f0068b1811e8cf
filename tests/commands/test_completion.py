"""Shell completion, asked of a shell."""

import re
import shutil
import subprocess

import pytest

from jaxcnn.__main__ import COMMANDS
from jaxcnn.commands.completion import SHELLS, script
from jaxcnn.commands.usage import help_page
from jaxcnn.errors import UserError
from jaxcnn.models import MODELS

# Call the function as bash does; the last word is the one to complete.
ASK = 'COMP_WORDS=({words}); COMP_CWORD={last}; _jaxcnn; echo "${{COMPREPLY[@]}}"'


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


def complete(*words):
    quoted = " ".join(f"'{word}'" for word in ("jaxcnn", *words))
    ask = ASK.format(words=quoted, last=len(words))
    return run("bash", "--norc", "-c", script("bash", COMMANDS) + ask)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ev"], ["evaluate"]),
        (["train", "lenet5-19"], ["lenet5-1998-mnist", "lenet5-1998-minibatch-mnist"]),
        (["train", "lenet5-mnist", "--model"], ["--model", "--model-axis"]),
        (["train", "--transforms", "cr"], ["crop"]),
        (["train", "--optimizer.name", "sg"], ["sgd", "sgd-2012"]),
        (["summary", "alexnet-"], [name for name in MODELS if name.startswith("alexnet-")]),
        (["evaluate", "runs/x", "--split", "v"], ["val", "validation"]),
        (["evaluate", "runs/x", "nothing"], []),
    ],
)
def test_bash_completes(words, expected):
    assert complete(*words) == expected


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_takes_the_script():
    code = f"autoload -U compinit; compinit -D -u\n{script('zsh', COMMANDS)}print $_comps[jaxcnn]"
    assert run("zsh", "-f", "-c", code)[-2:] == ["-F", "_jaxcnn"]


def test_completion_has_the_flags_of_the_help_page():
    pattern = re.compile(r"--[a-z][a-z0-9.-]*")
    entries = re.findall(r"^  (--\S+)", help_page("train", "lenet5-mnist", 100), re.MULTILINE)
    assert {*entries} <= {*pattern.findall(script("bash", ["train"]))} and len(entries) > 50


def test_script_refuses_another_shell():
    with pytest.raises(UserError, match=f"'fish'; expected {' or '.join(SHELLS)}"):
        script("fish", COMMANDS)
