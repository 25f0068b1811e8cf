"""The public API: docstrings, the order of arguments, and the names that the package exports."""

import importlib
import inspect
import pkgutil
import re

import pytest

import jaxcnn
from jaxcnn.data import augment, geometry
from jaxcnn.optim import curvature, optimizers, schedules

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(jaxcnn.__path__, "jaxcnn.")
    if not module.name.endswith("__main__")
)


def public(module):
    """Return the functions and classes that a module defines, without a leading underscore."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


def functions(*modules):
    return [
        pytest.param(value, id=f"{module.__name__.split('.')[-1]}.{name}")
        for module in modules
        for name, value in public(module).items()
        if inspect.isfunction(value)
    ]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_docstrings(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    for public_name, value in public(module).items():
        # A dataclass without one gets its signature.
        assert value.__doc__ and not value.__doc__.startswith(f"{public_name}("), public_name
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert inspect.getdoc(getattr(value, method)), f"{public_name}.{method}"


@pytest.mark.parametrize("function", functions(augment, geometry))
def test_augment_takes_its_key_first(function):
    parameters = list(inspect.signature(function).parameters)
    assert "key" not in parameters[1:]


@pytest.mark.parametrize("function", functions(augment, geometry, curvature, optimizers, schedules))
def test_options_are_keyword_only(function):
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty:
            assert parameter.kind is parameter.KEYWORD_ONLY, parameter.name


@pytest.mark.parametrize("name", jaxcnn.__all__)
def test_exported_names_are_importable_and_documented(name):
    value = getattr(jaxcnn, name)
    if isinstance(value, dict):  # explained by its module, or by a comment above it
        homes = [importlib.import_module(module) for module in MODULES]
        explained = re.compile(rf"^#.*\n{name}\b|^\"\"\"[^\"]*\b{name}\b", re.M)
        homes = [home for home in homes if getattr(home, name, None) is value]
        assert any(explained.search(inspect.getsource(home)) for home in homes)
    else:
        assert value.__module__.startswith("jaxcnn.") and value.__doc__
        assert name in vars(importlib.import_module(value.__module__))
