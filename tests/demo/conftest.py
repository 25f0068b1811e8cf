"""One browser for all tests of the page; they are skipped where there is none."""

import shutil

import pytest

from jaxcnn.data import datasets
from jaxcnn.demo.gallery import Gallery
from jaxcnn.demo.page import build_page
from jaxcnn.interop.pretrained import load_pretrained

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@pytest.fixture(scope="package")
def browser():
    """A browser without a window and with an empty profile."""
    reason = "needs pip install -e '.[browser]'"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def digits():
    """A hundred test digits as a gallery, the last ten as the hardest."""
    dataset = datasets.load("mnist5k")
    return Gallery(dataset.test_images[:100], dataset.test_labels[:100], 10)


@pytest.fixture(scope="package")
def page_files(tmp_path_factory, digits):
    """A function from a name of pretrained weights to the file of their page."""
    folder = tmp_path_factory.mktemp("pages")
    gallery = Gallery(*(array[:20] for array in digits[:2]), 6)

    def write(name):
        path = folder / f"{name}.html"
        if not path.exists():
            path.write_text(build_page(load_pretrained(name), gallery=gallery))
        return path

    return write


@pytest.fixture
def open_page(browser, page_files):
    """A function that opens a page offline; at the end, nothing was requested or reported."""
    contexts, unexpected = [], []

    def watched(path, **options):
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        address = path.as_uri()
        page.on("request", lambda request: request.url == address or unexpected.append(request.url))
        page.on("console", lambda message: unexpected.append(message.text))
        page.on("pageerror", lambda error: unexpected.append(str(error)))
        page.on("dialog", lambda dialog: unexpected.append(dialog.message))
        page.goto(address)
        return page

    def start(name_or_path="lenet5-mnist", width=1400, height=900, **options):
        path = page_files(name_or_path) if isinstance(name_or_path, str) else name_or_path
        return watched(path, viewport={"width": width, "height": height}, **options)

    yield start
    for context in contexts:
        context.close()
    assert unexpected == []
