import stat

from jaxcnn import files as cache


def test_cache_dir_is_private_and_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path / "own"))
    assert cache.cache_dir() == tmp_path / "own"
    monkeypatch.delenv("JAXCNN_CACHE_DIR")
    assert cache.cache_dir("a") == tmp_path / "xdg" / "jaxcnn" / "a"
    monkeypatch.delenv("XDG_CACHE_HOME")
    folder = cache.cache_dir("a", "b")
    assert folder == tmp_path / "home" / ".cache" / "jaxcnn" / "a" / "b"
    for path in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
