"""Two CPU devices, strict rank promotion, quick compilation, and caches of the tests' own."""

import os
import tempfile

# A cache of our own, inherited by the processes that tests start. Set before jaxcnn is imported.
os.environ["JAXCNN_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxcnn-test-cache-")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import pytest

# Programs that compile quickly, without optimizations by LLVM and, where XLA still has its older
# emitters, without the newer ones, in three quarters of the time. Set XLA_FLAGS to nothing to test
# the programs of users.
QUICK = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", QUICK)

# Shapes and types of annotations are checked at each call of these modules: those that compute with
# arrays and that nobody calls with wrong arguments or with stand-ins. Public functions check their
# arguments themselves, and their tests pass wrong ones. An annotation that computes with sizes
# ("height-taps+1") works for results only, so `cpu_convolution` is left out, too.
CHECKED = ("evaluation.metrics", "evaluation.probes", "evaluation.table", "optim", "summary")
CHECKED += ("training.device_loops", "training.resident", "training.step", "training.streamed")
jaxtyping.install_import_hook([f"jaxcnn.{name}" for name in CHECKED], "annotation_checker.check")

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def figures(monkeypatch):
    """A list of the figures that the test saves, instead of files."""
    from jaxcnn.evaluation import diagrams, pictures
    from jaxcnn.training import report

    saved = []
    for module in (diagrams, pictures, report):
        monkeypatch.setattr(module, "save_figure", lambda figure, _: saved.append(figure))
    return saved


@pytest.fixture
def image_folder(tmp_path):
    """60 images to learn from and 21 to test on, PNG and JPEG, of 72x72 to 100x80 pixels."""
    from helpers import CLASSES, save_image

    for i in range(81):
        split, name = "train" if i < 60 else "val", CLASSES[i % 3]
        path = tmp_path / "images" / split / name / f"{i:02d}.{'png' if i % 2 else 'JPEG'}"
        save_image(path, 72 + i % 29, 72 + i % 9, seed=i)
    return tmp_path / "images"


@pytest.fixture
def originals(tmp_path, monkeypatch):
    """A folder with MNIST's four files, small, whose checksums TFDS accepts."""
    from helpers import accept, write_mnist

    folder = tmp_path / "originals"
    write_mnist(folder, seed=0)
    accept(monkeypatch, "mnist", folder)
    return folder


@pytest.fixture
def serve():
    """A function that serves a folder on this machine and returns its URL."""
    import functools
    import http.server
    import threading

    class QuietHandler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    servers = []

    def start(folder):
        handler = functools.partial(QuietHandler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
