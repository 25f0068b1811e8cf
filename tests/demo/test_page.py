"""The page in a real browser: from a file, offline, drawn on by pointer, touch and keys."""

import dataclasses
import math
import re

import numpy as np
import pytest
from helpers import drawn_page
from PIL import Image

from jaxcnn.data import datasets
from jaxcnn.demo.page import as_iframe, build_page
from jaxcnn.evaluation.digits import prepare_digit
from jaxcnn.interop.pretrained import load_pretrained

# Each digit as strokes in a square of 100x100.
DIGITS = {
    "0": [
        [(50, 12), (28, 25), (22, 50), (28, 75), (50, 88), (72, 75), (78, 50), (72, 25), (50, 12)]
    ],
    "1": [[(52, 10), (50, 90)]],
    "2": [[(25, 28), (38, 13), (60, 13), (72, 28), (66, 46), (45, 66), (25, 86), (78, 86)]],
    "3": [
        [(28, 18), (50, 12), (68, 24), (62, 42), (44, 48), (66, 54), (74, 72), (56, 88), (26, 82)]
    ],
    "4": [[(34, 12), (26, 52), (74, 52)], [(66, 14), (62, 90)]],
    "5": [[(72, 12), (34, 12), (30, 44), (54, 40), (72, 56), (66, 80), (46, 88), (26, 80)]],
    "6": [
        [(62, 10), (40, 32), (28, 60), (34, 82), (54, 88), (70, 74), (64, 58), (46, 56), (31, 66)]
    ],
    "7": [[(24, 14), (76, 14), (56, 48), (44, 90)]],
    "8": [
        [(50, 48), (32, 36), (34, 18), (50, 10), (66, 18), (68, 34), (50, 48)],
        [(50, 48), (30, 64), (32, 82), (50, 90), (68, 82), (70, 64), (50, 48)],
    ],
    "9": [
        [(70, 28), (54, 12), (34, 20), (32, 40), (50, 50), (68, 40), (70, 28), (68, 60), (58, 90)]
    ],
}


def answer(page):
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    return page.inner_text("#best")


def draw(page, strokes):
    page.click("#clear")
    box = page.locator("#pad").bounding_box()
    for stroke in strokes:
        places = [
            (box["x"] + x * box["width"] / 100, box["y"] + y * box["height"] / 100)
            for x, y in stroke
        ]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=2)
        page.mouse.up()


def test_page_shows_an_answer_from_the_start_and_asks_nobody(open_page):
    page = open_page()  # the fixture asserts that nothing was requested or reported
    assert answer(page) == "3"
    assert "agree with JAX" in page.inner_text("#check")
    assert page.locator("#arithmetic .formula").count() >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "lenet5-mnist",
        pytest.param("lenet5-1998-mnist", marks=pytest.mark.slow),
        pytest.param("lenet5-modern-mnist", marks=pytest.mark.slow),
    ],
)
def test_page_knows_ten_drawn_digits(name, open_page):
    page = open_page(name)
    found = {}
    for digit, strokes in DIGITS.items():
        draw(page, strokes)
        found[digit] = answer(page)
    assert found == {digit: digit for digit in DIGITS}


def test_pad_erases_undoes_and_clears(open_page):
    page = open_page()
    ink = "lenet5.pad.image.data.reduce((sum, grey) => sum + grey, 0)"
    draw(page, DIGITS["4"])
    answer(page)
    whole = page.evaluate(ink)
    page.click("#eraser")
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.65, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.65, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()
    answer(page)
    assert page.evaluate(ink) < whole
    page.click("#undo")
    answer(page)
    assert page.evaluate(ink) == whole
    page.click("#clear")
    assert answer(page) == "?"
    page.click("#undo")
    answer(page)
    assert page.evaluate(ink) == whole


@pytest.mark.slow
def test_pad_takes_touches_and_does_not_scroll(open_page):
    page = open_page(width=360, height=740, has_touch=True, is_mobile=True)
    page.tap("#clear")
    box = page.locator("#pad").bounding_box()
    session = page.context.new_cdp_session(page)
    for i in range(8):
        point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] * (0.1 + i / 10)}
        kind = "touchMove" if i else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert answer(page) == "1"
    assert page.evaluate("scrollY") == 0


def test_pad_and_layers_obey_keys_and_speak(open_page):
    page = open_page()
    page.click("#clear")
    page.focus("#pad")
    for key in ["ArrowUp"] * 14 + ["Space"] + ["ArrowDown"] * 28 + ["Space"]:
        page.keyboard.press(key)
    assert answer(page) == "1"
    page.locator("#live", has_text="Answer: 1").wait_for(state="attached")
    page.focus('.layer[data-index="3"] .values')
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageDown")
    assert page.inner_text("#spoken").startswith("C3, map 1, row 5, column 6: ")
    page.keyboard.press("Enter")
    assert page.inner_text("#arithmetic h3") == "C3, map 1, row 5, column 6"
    page.keyboard.press("Escape")
    assert page.locator("#arithmetic").is_hidden()


def test_page_fits_every_width_in_both_themes(open_page):
    page = open_page("lenet5-1998-mnist")
    for width, theme in [(360, "light"), (800, "dark"), (1400, "light")]:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        answer(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.locator(f"html[data-theme={theme}]").wait_for(state="attached")
        for canvas in page.locator(".maps .values").all():
            box, room = canvas.bounding_box(), canvas.locator("..").bounding_box()
            assert box["width"] <= room["width"] and box["height"] > 20
    page.select_option("#theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 18, 22)"


def test_notes_can_be_closed_and_shown_again(open_page):
    page = open_page()
    notes = page.locator(".note:visible")
    count = notes.count()
    assert count == 4
    assert "need only 6 × (25 + 1) = 156 parameters" in "".join(notes.all_inner_texts())
    notes.first.locator("button").click()
    assert notes.count() == count - 1
    page.click("#notes")
    assert notes.count() == 0
    page.click("#notes")
    assert notes.count() == count


def test_gallery_shows_digits_as_the_network_was_tested(open_page, digits):
    page = open_page()
    assert page.locator("#gallery button").count() == 20
    page.locator("#gallery button").nth(5).click()
    answer(page)
    expected = digits.images[5].ravel().tolist()
    assert page.evaluate("[...lenet5.state.pixels]") == expected
    page.locator("#score", has_text="of 20 right").wait_for()


@pytest.mark.slow
def test_picture_of_a_page_is_prepared_and_read(open_page, tmp_path):
    digit = datasets.load("mnist5k").test_images[3, ..., 0]
    photo = drawn_page(digit, np.random.default_rng(0), size=150, noise=2.0)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    page = open_page()
    page.set_input_files("#file", tmp_path / "photo.png")
    while page.evaluate("lenet5.pad.image.width") != 800:
        pass
    answer(page)
    seen = np.array(page.evaluate("[...lenet5.state.pixels]")).reshape(28, 28)
    assert np.abs(seen - prepare_digit(photo)[..., 0].astype(int)).max() <= 2
    (tmp_path / "no.png").write_text("no image")
    page.set_input_files("#file", tmp_path / "no.png")
    page.locator("#problem", has_text="no.png is not an image").wait_for()


def check(formulas):
    """Assert that each line of arithmetic is right, to the digits that it shows."""
    previous = None
    for line in formulas:
        left, right = line.replace("−", "-").rsplit(" = ", 1)
        numbers = [float(text) for text in re.findall(r"-?[\d.]+", left.replace("- ", "-"))]
        if left.startswith("1.7159 tanh"):
            result = 1.7159 * math.tanh(2 / 3 * numbers[1])
        elif left.startswith("× coefficient"):
            result = previous * numbers[0] + numbers[1]
        else:
            result = sum(numbers)
        previous = float(right)
        assert result == pytest.approx(previous, abs=0.005), line


def test_click_writes_out_the_arithmetic_of_every_layer(open_page):
    page = open_page("lenet5-1998-mnist")
    for index in range(1, 8):
        units = page.locator(f'.layer[data-index="{index}"] :is(.values, .output)')
        units.first.click(position={"x": 20, "y": 25})
        formulas = page.locator("#arithmetic .formula").all_inner_texts()
        value = page.inner_text("#arithmetic .value b").lstrip("−")
        assert any(formula.endswith(f" {value}") or value in formula for formula in formulas)
        if index < 7:
            check(formulas)
    assert formulas[0] == f"Σ (F6 − stored)² = {value}"


def test_settings_disturb_the_digit(open_page):
    page = open_page()
    before = np.array(page.evaluate("[...lenet5.state.pixels]")).reshape(28, 28)
    for name, value, expected in [
        ("right", "3", np.roll(before, 3, 1)),
        ("down", "-2", np.roll(before, -2, 0)),
        ("angle", "90", np.rot90(before, -1)),
    ]:
        page.fill(f'[data-disturb="{name}"]', value)
        answer(page)
        seen = np.array(page.evaluate("[...lenet5.state.pixels]")).reshape(28, 28)
        np.testing.assert_array_equal(seen, expected)
        page.click("#reset")
    page.fill('[data-disturb="noise"]', "50")
    answer(page)
    noisy = np.array(page.evaluate("[...lenet5.state.pixels]")).reshape(28, 28)
    assert 20 < np.std(noisy - before) < 50
    page.click("#reset")
    draw(page, [[(20, 20), (20, 40)]])
    answer(page)
    centred = page.evaluate("lenet5.state.pixels.indexOf(255) % 28")
    page.uncheck("#centre")
    page.uncheck("#box")
    answer(page)
    assert page.evaluate("lenet5.state.pixels.findIndex((x) => x > 99) % 28") < centred


def test_hostile_names_stay_text(open_page, tmp_path, digits):
    trained = load_pretrained("lenet5-mnist")
    evil = "</script><script>alert(1)</script><!--"
    names = (evil, '"><img src=x onerror=alert(1)>', "{{CODE}}", "\u2028", *"456789")
    info = dataclasses.replace(trained.info, class_names=names)
    config = dataclasses.replace(trained.config, dataset=f"folder:/{evil}", preset=evil)
    trained = trained._replace(info=info, config=config, name=f"runs/{evil}")
    path = tmp_path / "evil.html"
    path.write_text(build_page(trained, gallery=digits._replace(num_hard=0)))
    page = open_page(path)
    page.locator("#gallery button").nth(0).click()
    answer(page)
    assert evil in page.locator("#bars .name").all_inner_texts()
    assert "{{CODE}}" in page.locator("#bars .name").all_inner_texts()
    assert page.locator("script").count() == 2 and "script>" in page.inner_text("#facts")


@pytest.mark.slow
def test_page_works_inside_a_frame_of_a_notebook(open_page, tmp_path, page_files):
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html>{as_iframe(page_files('lenet5-mnist').read_text())}")
    frame = open_page(path).frame_locator("iframe")
    assert frame.locator("#best").inner_text() == "3"
