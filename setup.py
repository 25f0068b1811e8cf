"""Give package indexes a README whose links and pictures have absolute addresses.

The address of the repository is set once, in pyproject.toml; everything else about the package is
there, too.
"""

import pathlib
import re
import tomllib

from setuptools import setup

root = pathlib.Path(__file__).parent
project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
address = project["urls"]["Repository"]
readme = (root / "README.md").read_text()
readme = re.sub(r"(!\[[^]]*\])\((?!https?:)", rf"\1({address}/raw/main/", readme)
readme = re.sub(r"(?<!!)(\[[^]]*\])\((?!https?:)", rf"\1({address}/blob/main/", readme)
setup(long_description=readme, long_description_content_type="text/markdown")
