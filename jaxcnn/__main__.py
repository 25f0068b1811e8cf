"""The command line: jaxcnn train|evaluate|..., or python -m jaxcnn."""

import importlib
import shutil
import sys
import textwrap
from typing import Any

from jaxcnn.cli import one_line_errors
from jaxcnn.errors import lookup

COMMANDS = {
    "train": "train a network, evaluate it, and keep the run in one folder",
    "evaluate": "evaluate a run on the whole test set, in numbers and pictures",
    "predict": "classify images with a trained network",
    "demo": "write a page to draw a digit on and to look inside LeNet-5",
    "summary": "print a network layer by layer",
    "runs": "list runs: what differs, accuracy, steps done, time and state",
    "compare": "list runs, with means over seeds and curves in one picture",
    "study": "measure a claim over seeds: one command, a table and a figure",
    "convert": "export a network to ONNX, StableHLO or PyTorch; import weights",
    "benchmark": "measure speed compared with PyTorch and plain linen",
}


HEADER = ("usage: jaxcnn COMMAND [ARGUMENT ...]", "")
FOOTER = (
    "",
    "jaxcnn COMMAND --help       arguments of a command",
    "jaxcnn --completion SHELL   completion for bash or zsh",
    "jaxcnn --version            version",
)


def main() -> None:
    """Run the command that the first argument names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    with one_line_errors():
        if name in ("-h", "--help", "help"):
            print(help_page())
            return
        if name == "--version":
            from jaxcnn.report import package_version  # late: it imports rich

            print(f"jaxcnn {package_version('jaxcnn')}")
            return
        if name == "--completion":
            from jaxcnn.commands.completion import script  # late: it imports jax

            print(script(arguments[0] if arguments else "", COMMANDS), end="")
            return
        lookup("command", name, COMMANDS)
    sys.argv = [f"jaxcnn {name}", *arguments]
    importlib.import_module(f"jaxcnn.commands.{name}").main()


def help_page() -> str:
    """Return the list of the commands, as wide as the terminal."""
    options: dict[str, Any] = {"width": min(shutil.get_terminal_size().columns, 100)}
    options["subsequent_indent"] = 14 * " "
    entries = [textwrap.fill(f"  {name:12}{text}", **options) for name, text in COMMANDS.items()]
    return "\n".join([*HEADER, *entries, *FOOTER])


if __name__ == "__main__":
    main()
