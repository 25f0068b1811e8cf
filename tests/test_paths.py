"""Paths as users write them."""

import os
import pathlib
import pwd

import pytest

from jaxcnn.errors import UserError
from jaxcnn.paths import local_path


@pytest.fixture
def no_home(monkeypatch):
    """A user without HOME and without an entry in the password file, as in some containers."""

    def unknown(*_):
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_local_path_expands_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/runs", "`workdir`") == pathlib.Path("/home/me/runs")
    assert local_path("~", "`workdir`") == pathlib.Path("/home/me")
    for same in ("runs/a:b", "./~x", "/a/b", "a", ".", "a b/[c]", pathlib.Path("x")):
        assert local_path(same, "`workdir`") == pathlib.Path(os.path.normpath(same))


@pytest.mark.parametrize(
    "url", ["gs://bucket/run", "s3://b", "HTTP://host/x", "file:///x", "hdfs://h/x", "gs:/b"]
)
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_local_path_refuses_a_url(url, kind):
    with pytest.raises(UserError, match="^`workdir` is .*, a URL; expected a path .* gcsfuse$"):
        local_path(kind(url), "`workdir`")


@pytest.mark.parametrize("path", ["", "a\0b", None, 5])
def test_local_path_refuses_what_is_no_path(path):
    with pytest.raises(UserError, match="`workdir` is .*; expected a path$"):
        local_path(path, "`workdir`")


def test_local_path_refuses_an_unknown_home(no_home):
    for path in ("~/runs", "~", "~nosuchuser/x"):
        with pytest.raises(UserError, match="home folder is unknown; write the whole path"):
            local_path(path, "`workdir`")
