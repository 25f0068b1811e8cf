"""Files that are whole or absent, and the user's cache directory."""

import os
import stat

import pytest

from jaxcnn.files import cache_dir, open_regular, write_atomically


def test_cache_dir_is_private_and_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("JAXCNN_CACHE_DIR")
    assert cache_dir("a") == tmp_path / "xdg" / "jaxcnn" / "a"
    monkeypatch.delenv("XDG_CACHE_HOME")
    folder = cache_dir("a", "b")
    assert folder == tmp_path / "home" / ".cache" / "jaxcnn" / "a" / "b"
    for path in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_cache_dir_is_never_a_folder_called_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("JAXCNN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: str(path))  # as without a home
    with pytest.raises(OSError, match="no home folder is known for ~/.cache/jaxcnn; set JAXCNN"):
        cache_dir("xla")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["text, é", b"\x89bytes"])
def test_write_atomically_replaces_a_file(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_text("an older and much longer file")
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_write_atomically_keeps_the_old_file_when_writing_fails(failing, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("an older file")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "a newer file")
    assert path.read_text() == "an older file"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_never_shows_half_a_file(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.json", []
    path.write_text("old")
    fsync = os.fsync
    # The content is flushed before the renaming, the folder after it.
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(path.read_text()) or fsync(file))
    write_atomically(path, "new")
    assert seen == ["old", "new"] and path.read_text() == "new"


def test_open_regular_reads_files_and_links_to_files(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name, max_bytes=7) as file:
            assert file.read() == b"content"
    with pytest.raises(ValueError, match="it has 7 bytes; expected at most 6"):
        open_regular(tmp_path / "file", max_bytes=6)


def test_open_regular_never_waits(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/zero"):
        with pytest.raises(
            ValueError, match="it is a (fifo|folder|device); expected a regular file"
        ):
            open_regular(path, max_bytes=9)
    # A file that is replaced by a fifo between the check and the opening.
    (tmp_path / "file").touch()
    monkeypatch.setattr("os.stat", lambda _, stat=os.stat: stat(tmp_path / "file"))
    with pytest.raises(ValueError, match="it is a fifo"):
        open_regular(tmp_path / "fifo", max_bytes=9)
