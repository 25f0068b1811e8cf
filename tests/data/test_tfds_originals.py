"""Original files of every dataset, made small in their layout: packed, unpacked, corrupt."""

import gzip
import hashlib
import io
import pathlib
import pickle
import re
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from helpers import accept, assert_same_examples

from jaxcnn.data import datasets
from jaxcnn.data.tfds_originals import ORIGINALS
from jaxcnn.errors import UserError

NUM_IMAGES = {"train": 20, "test": 10}


def idx(array, kind=8):
    header = bytes([0, 0, kind, array.ndim, *np.array(array.shape, ">i4").tobytes()])
    return header + array.astype({8: ">u1", 12: ">i4"}[kind]).tobytes()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def examples(shape, num_classes, splits=("train", "test")):
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(256, size=(NUM_IMAGES[split], *shape), dtype=np.uint8),
            rng.integers(num_classes, size=NUM_IMAGES[split], dtype=np.int32),
        )
        for split in splits
    }


def idx_files(names, num_classes):
    sets = examples((28, 28, 1), num_classes)
    files = {}
    for split, (images, labels) in sets.items():
        image_name, label_name = (
            name % {"train": "train", "test": names[2]}[split] for name in names[:2]
        )
        columns = (
            np.repeat(labels[:, None], 8, 1) * [1, *[0] * 7] if "idx2" in label_name else labels
        )
        files[image_name] = idx(images[..., 0])
        files[label_name] = idx(columns, 12 if "idx2" in label_name else 8)
    return files, sets


def mnist():
    return idx_files(("%s-images-idx3-ubyte", "%s-labels-idx1-ubyte", "t10k"), 10)


def emnist():
    names = ("emnist-balanced-%s-images-idx3-ubyte", "emnist-balanced-%s-labels-idx1-ubyte", "test")
    return idx_files(names, 47)


def qmnist():
    return idx_files(("qmnist-%s-images-idx3-ubyte", "qmnist-%s-labels-idx2-int", "test"), 10)


def cifar_rows(sets, with_coarse):
    for split, (images, labels) in sets.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        columns = [labels[:, None] // 5, labels[:, None]] if with_coarse else [labels[:, None]]
        yield split, np.hstack([*columns, planes]).astype(np.uint8)


def cifar10():
    sets = examples((32, 32, 3), 10)
    rows = dict(cifar_rows(sets, with_coarse=False))
    files = {
        f"data_batch_{i + 1}.bin": rows["train"][4 * i : 4 * i + 4].tobytes() for i in range(5)
    }
    names = "\n".join(datasets.CIFAR10_CLASSES).encode() + b"\n\n"
    return files | {"test_batch.bin": rows["test"].tobytes(), "batches.meta.txt": names}, sets


def cifar100():
    sets = examples((32, 32, 3), 100)
    files = {f"{split}.bin": r.tobytes() for split, r in cifar_rows(sets, with_coarse=True)}
    for name, count in (("coarse", 20), ("fine", 100)):
        lines = "\n".join(f"{name}_{i}" for i in range(count))
        files[f"{name}_label_names.txt"] = lines.encode() + b"\n"
    return files, sets


def cifar10_1():
    sets = examples((32, 32, 3), 10, ["test"])
    images, labels = sets["test"]
    return {"cifar10.1_v6_data.npy": npy(images), "cifar10.1_v6_labels.npy": npy(labels)}, sets


def mnist_corrupted():
    sets = examples((28, 28, 1), 10)
    files = {}
    for split, (images, labels) in sets.items():
        files[f"fog/{split}_images.npy"] = npy(images)
        files[f"fog/{split}_labels.npy"] = npy(labels.astype(np.int64))
        files[f"identity/{split}_images.npy"] = npy(images // 2)
    return files, sets


def cifar10_corrupted():
    sets = examples((32, 32, 3), 10, ["test"])
    images, labels = sets["test"]
    stacked = np.concatenate([images // 4, images // 2, images, images // 3, images // 5])
    files = {"fog.npy": npy(stacked), "labels.npy": npy(np.tile(labels.astype(np.uint8), 5))}
    return files | {"frost.npy": npy(stacked // 7)}, sets


# Dataset -> its files, the archive that holds them or None, and their folder in the archive.
SETS = {
    "mnist": (mnist, None, ""),
    "fashion_mnist": (mnist, None, ""),
    "kmnist": (mnist, None, ""),
    "emnist/balanced": (emnist, "gzip.zip", "gzip/"),
    "qmnist": (qmnist, None, ""),
    "cifar10": (cifar10, "cifar-10-binary.tar.gz", "cifar-10-batches-bin/"),
    "cifar100": (cifar100, "cifar-100-binary.tar.gz", "cifar-100-binary/"),
    "cifar10_1/v6": (cifar10_1, None, ""),
    "mnist_corrupted/fog": (mnist_corrupted, "mnist_c.zip", "mnist_c/"),
    "cifar10_corrupted/fog_3": (cifar10_corrupted, "CIFAR-10-C.tar", "CIFAR-10-C/"),
}
GZIPPED = ("mnist", "fashion_mnist", "kmnist", "emnist/balanced", "qmnist")


def write_packed(name, folder):
    """Write the files of a dataset as they are downloaded; return the expected examples."""
    make, archive, prefix = SETS[name]
    files, sets = make()
    if name in GZIPPED:
        files = {f"{file}.gz": gzip.compress(content) for file, content in files.items()}
    folder.mkdir()
    members = {prefix + file: content for file, content in files.items()}
    if archive is None:
        for file, content in members.items():
            (folder / file).write_bytes(content)
    elif archive.endswith(".zip"):
        with zipfile.ZipFile(folder / archive, "w") as packed:
            for file, content in members.items():
                packed.writestr(file, content)
    else:
        write_tar(folder / archive, members)
    return sets


def write_tar(path, members):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as packed:
        for file, content in reversed(members.items()):  # any order
            member = tarfile.TarInfo(file)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))


def write_unpacked(name, folder):
    make, _, prefix = SETS[name]
    files, sets = make()
    for file, content in files.items():
        path = folder / "deep" / prefix / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return sets


def accept_all(monkeypatch, name, folder, url="http://127.0.0.1:1/"):
    """Let the checksums of a dataset be those of the files in a folder, as it is downloaded."""
    if ORIGINALS[name].url is None:
        accept(monkeypatch, name, folder, url)
    else:
        monkeypatch.setitem(ORIGINALS, name, ORIGINALS[name]._replace(url=url))
        accept_others(monkeypatch, name, folder)


def accept_others(monkeypatch, name, folder):
    """Let the checksums of the files that TFDS does not know be those of the files in a folder."""
    md5 = {path.name: checksum(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setitem(ORIGINALS, name, ORIGINALS[name]._replace(md5=md5))


def checksum(content):
    return hashlib.md5(content).hexdigest()


def assert_loaded(name, sets, **places):
    dataset = datasets.load(name, **places)
    assert_same_examples(dataset.test_images, dataset.test_labels, *sets["test"])
    if "train" in sets:
        assert_same_examples(dataset.train_images, dataset.train_labels, *sets["train"])
    else:
        assert dataset.train_images.shape == (0, *dataset.test_images.shape[1:])
        assert dataset.train_labels.shape == (0,)
    return dataset


@pytest.mark.parametrize("name", SETS)
def test_originals_are_prepared_from_packed_files(name, tmp_path, monkeypatch):
    sets = write_packed(name, tmp_path / "files")
    accept_all(monkeypatch, name, tmp_path / "files")
    places = {"data_dir": tmp_path / "data", "manual_dir": tmp_path / "files"}
    dataset = assert_loaded(name, sets, **places)
    assert dataset.name == name
    expected = {
        "cifar10": datasets.CIFAR10_CLASSES,
        "cifar10_1/v6": datasets.CIFAR10_CLASSES,
        "cifar10_corrupted/fog_3": datasets.CIFAR10_CLASSES,
        "cifar100": tuple(f"fine_{i}" for i in range(100)),
        "emnist/balanced": datasets.EMNIST_CLASSES,
    }
    if name in expected:
        assert dataset.class_names == expected[name]
    assert len(dataset.class_names) == {"emnist/balanced": 47, "cifar100": 100}.get(name, 10)
    shutil.rmtree(tmp_path / "files")
    assert_loaded(name, sets, data_dir=tmp_path / "data")


@pytest.mark.parametrize("name", ["emnist/balanced", "qmnist", "cifar10_1/v6"])
def test_originals_are_downloaded(name, tmp_path, monkeypatch, serve):
    sets = write_packed(name, tmp_path / "files")
    accept_all(monkeypatch, name, tmp_path / "files", serve(tmp_path / "files"))
    assert_loaded(name, sets, data_dir=tmp_path / "data")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*SETS} - {"cifar10_1/v6"}))  # which is never packed
def test_originals_are_prepared_from_unpacked_files(name, tmp_path, monkeypatch, caplog):
    sets = write_unpacked(name, tmp_path / "files")
    monkeypatch.setitem(ORIGINALS, name, ORIGINALS[name]._replace(md5={}))
    assert_loaded(name, sets, data_dir=tmp_path / "data", manual_dir=tmp_path / "files")
    assert "is not verified" in caplog.text


class Python2Pickler(pickle._Pickler):
    """A pickler that writes bytes as Python 2 wrote them, with which CIFAR was pickled."""

    dispatch = {**pickle._Pickler.dispatch}

    def save_string(self, content):
        short = len(content) < 256
        size = len(content).to_bytes(1 if short else 4, "little")
        self.write((b"U" if short else b"T") + size + content)
        self.memoize(content)

    dispatch[bytes] = save_string


def pickle_as_python2(value):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def python_batches(name):
    """Return CIFAR's files for Python."""
    files, sets = SETS[name][0]()
    num_labels = 1 if name == "cifar10" else 2
    label_keys = [b"labels"] if name == "cifar10" else [b"coarse_labels", b"fine_labels"]
    batches = {}
    for file, content in files.items():
        if file.endswith(".bin"):
            rows = np.frombuffer(content, np.uint8).reshape(-1, num_labels + 3072)
            batch = {key: rows[:, i].tolist() for i, key in enumerate(label_keys)}
            batch |= {b"data": np.array(rows[:, num_labels:]), b"filenames": [b"a.png"] * len(rows)}
        else:
            key = b"label_names" if name == "cifar10" else file[:-4].encode()
            batch = {key: content.split(), b"num_vis": 3072}
        target = {"batches.meta.txt": "batches.meta"}.get(file, file.removesuffix(".bin"))
        target = "meta" if target.endswith("names.txt") else target
        batches.setdefault(target, {}).update(batch)
    return {target: pickle_as_python2(batch) for target, batch in batches.items()}, sets


PYTHON_FOLDERS = {"cifar10": "cifar-10-batches-py/", "cifar100": "cifar-100-python/"}


@pytest.mark.parametrize("name", PYTHON_FOLDERS)
@pytest.mark.parametrize("packed", [True, False])
def test_originals_are_prepared_from_archives_for_python(name, packed, tmp_path, monkeypatch):
    batches, sets = python_batches(name)
    members = {PYTHON_FOLDERS[name] + file: content for file, content in batches.items()}
    folder = tmp_path / "files"
    folder.mkdir()
    if packed:
        write_tar(folder / ORIGINALS[name].python_archive, members)
    else:
        (folder / PYTHON_FOLDERS[name]).mkdir()
        for file, content in members.items():
            (folder / file).write_bytes(content)
    places = {"data_dir": tmp_path / "data", "manual_dir": folder}
    with pytest.raises(UserError, match="has the md5 checksum .*; expected "):
        datasets.load(name, **places)
    accept_others(monkeypatch, name, folder)
    dataset = assert_loaded(name, sets, **places)
    assert dataset.class_names[1] == {"cifar10": "automobile", "cifar100": "fine_1"}[name]


def test_originals_run_no_code_of_a_pickle(tmp_path, monkeypatch):
    class Touch:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "executed",)

    batches, _ = python_batches("cifar100")
    folder = tmp_path / "files"
    folder.mkdir()
    for file, content in (batches | {"train": pickle.dumps({b"data": Touch()})}).items():
        (folder / file).write_bytes(content)
    accept_others(monkeypatch, "cifar100", folder)
    with pytest.raises(UserError, match=r"train is no batch of CIFAR \(it refers to "):
        datasets.load("cifar100", data_dir=tmp_path / "data", manual_dir=folder)
    assert not (tmp_path / "executed").exists()


def flip(content):
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize("route", ["manual_dir", "download"])
def test_originals_verify_what_tfds_does_not_know(route, tmp_path, monkeypatch, serve):
    folder = tmp_path / "files"
    sets = write_packed("qmnist", folder)
    accept_all(monkeypatch, "qmnist", folder, serve(folder))
    path = folder / "qmnist-test-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(flip(content))
    places = {"data_dir": tmp_path / "data"} | ({route: folder} if route == "manual_dir" else {})
    with pytest.raises(UserError, match=f"{path.name} has the md5 checksum .*; expected") as error:
        datasets.load("qmnist", **places)
    assert "\n" not in str(error.value)
    path.write_bytes(content)
    assert_loaded("qmnist", sets, **places)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("mnist", "t10k-labels-idx1-ubyte", b"", "expected an IDX file"),
        ("mnist", "t10k-labels-idx1-ubyte", idx(np.zeros(9)), "shorter than argument|longer"),
        ("mnist", "t10k-images-idx3-ubyte", idx(np.zeros((10, 27, 28))), r"uint8 \(27, 28, 1\)"),
        ("mnist", "t10k-labels-idx1-ubyte", idx(np.full(10, 10)), "10"),
        ("cifar10", "test_batch.bin", bytes(3072), "cannot reshape"),
        ("mnist_corrupted/fog", "fog/test_images.npy", npy(np.array([{}])), "allow_pickle=False"),
        ("mnist_corrupted/fog", "fog/test_images.npy", npy(np.zeros((10, 28, 28, 1))), "float64"),
    ],
)
def test_originals_refuse_corrupt_files(name, file, content, message, tmp_path, monkeypatch):
    write_unpacked(name, tmp_path / "files")
    (path,) = (tmp_path / "files").rglob(file)
    path.write_bytes(content)
    monkeypatch.setitem(ORIGINALS, name, ORIGINALS[name]._replace(md5={}))
    with pytest.raises(UserError, match=f"^{name} cannot be prepared from .*({message})") as error:
        datasets.load(name, data_dir=tmp_path / "data", manual_dir=tmp_path / "files")
    assert "\n" not in str(error.value)


def test_originals_refuse_to_choose_between_folders(tmp_path, monkeypatch):
    sets = write_packed("kmnist", tmp_path / "FashionMNIST")
    shutil.copytree(tmp_path / "FashionMNIST", tmp_path / "KMNIST" / "raw")
    with pytest.raises(UserError, match="FashionMNIST and .*KMNIST/raw have the files; set `man"):
        datasets.load("kmnist", data_dir=tmp_path / "data", manual_dir=tmp_path)
    folder = tmp_path / "KMNIST"  # verified by TFDS's checksums wherever they are found
    with pytest.raises(UserError, match="has the sha256 checksum .*; expected"):
        datasets.load("kmnist", data_dir=tmp_path / "data", manual_dir=folder)
    accept(monkeypatch, "kmnist", folder / "raw")
    assert_loaded("kmnist", sets, data_dir=tmp_path / "data", manual_dir=folder)


def test_originals_name_the_files_that_are_missing(tmp_path):
    (tmp_path / "files").mkdir()
    for name, file in (
        ("qmnist", "qmnist-train-images-idx3-ubyte.gz"),
        ("emnist/balanced", "gzip.zip"),
    ):
        with pytest.raises(UserError, match=f"{name} .*/{re.escape(file)} does not exist"):
            datasets.load(name, data_dir=tmp_path / "data", manual_dir=tmp_path / "files")


def test_datasets_have_the_names_and_versions_of_tfds():
    loaders = {n: loader.keywords for n, loader in datasets.DATASETS.items() if n != "mnist5k"}
    assert loaders.keys() == ORIGINALS.keys()
    for name, original in ORIGINALS.items():
        configs = {config.name: config.version for config in original.base.BUILDER_CONFIGS}
        version = configs.get(name.partition("/")[2]) or original.base.VERSION
        assert loaders[name]["version"] == str(version) and loaders[name]["name"] == name
        if configs:
            assert name.partition("/")[2] in configs
    recorded = ORIGINALS["cifar10_1/v6"].base.url_infos
    assert set(ORIGINALS["cifar10_1/v6"].sources().values()) <= recorded.keys()
