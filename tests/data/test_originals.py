"""Original files of datasets: searched, unpacked within bounds, and parsed."""

import gzip
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest

from jaxcnn.data import originals


def test_find_unpacked_takes_the_folder_that_has_all_files(tmp_path):
    for path in ("a", "one/a", "one/raw/a", "one/raw/b.gz", "one/raw/b", "one/two/three/a"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    raw = tmp_path / "one" / "raw"
    assert originals.find_unpacked(tmp_path, ["a", "b"]) == {"a": raw / "a", "b": raw / "b.gz"}
    assert originals.find_unpacked(tmp_path, ["a", "c"]) is None
    with pytest.raises(ValueError, match="one/raw have the files; set `manual_dir` to one"):
        originals.find_unpacked(tmp_path, ["a"])


def write_archive(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_read_archive_returns_members_of_any_folder(suffix, tmp_path):
    path = tmp_path / f"archive.{suffix}"
    write_archive(path, {"../x/a": b"1", "b.gz": gzip.compress(b"2"), "x/not-a": b"3"})
    assert originals.read_archive(path, ["a", "b"]) == {"a": b"1", "b": b"2"}
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(ValueError, match="has no c, d$"):
        originals.read_archive(path, ["a", "c", "d"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=f"{path} is corrupt"):
        originals.read_archive(path, ["a", "b", "z"])


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_read_archive_bounds_what_it_unpacks(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(originals, "MAX_UNPACKED_BYTES", 1000)
    path = tmp_path / f"archive.{suffix}"
    for members in ({"a": bytes(1001)}, {"a.gz": gzip.compress(bytes(1001))}):
        write_archive(path, members)
        with pytest.raises(ValueError, match="unpacks to more than 1,000 bytes"):
            originals.read_archive(path, ["a"])
    write_archive(path, {"a": bytes(1000)})
    assert len(originals.read_archive(path, ["a"])["a"]) == 1000


@pytest.mark.parametrize("content", [gzip.compress(b"a" * 99, mtime=0)[:-9], b"no gzip"])
def test_unpack_refuses_a_corrupt_file(content):
    with pytest.raises(ValueError, match=r"a\.gz is corrupt"):
        originals.unpack("a.gz", content)


def test_parse_idx_reads_bytes_and_integers():
    header = bytes([0, 0, 12, 2, 0, 0, 0, 1, 0, 0, 0, 2])
    np.testing.assert_array_equal(
        originals.parse_idx(header + bytes([0, 0, 1, 2, 255, 255, 255, 255])), [[258, -1]]
    )
    for content in (b"", b"\0\0\x0d\1", header, header + bytes(7), header[:6]):
        with pytest.raises(ValueError):
            originals.parse_idx(content)
