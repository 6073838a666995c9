"""The page in a real browser: dropped, pasted and chosen images, scores, maps, errors, keyboard, both themes."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import os
import shutil
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageFilter

from contrique_jax.data.scenes import pristine_scene
from contrique_jax.serving.app import make_app
from contrique_jax.serving.engine import Engine
from contrique_jax.serving.limits import Limits
from contrique_jax.serving.server import listen, make_server
from contrique_jax.serving.service import Service

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TOKEN = "a-word-for-tests"
DROP = """([kind, files]) => {
    const data = new DataTransfer();
    for (const [name, type, text] of files) {
        data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name, {type}));
    }
    const event = kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
        : new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
    document.body.dispatchEvent(event);
}"""
SCORES = "[...document.querySelectorAll('.card.done .number')].map((e) => Number(e.textContent))"
NAMES = "[...document.querySelectorAll('.card .name')].map((e) => e.textContent)"


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that is installed on this machine."""
    pytest.importorskip("axe_playwright_python")
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no browser: none of " + ", ".join(BROWSERS) + " is installed")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def engine():
    return Engine(None, None, max_megapixels=1, memory=1)


@contextlib.contextmanager
def served(engine: Engine, token: str | None = None) -> Iterator[str]:
    """The address of a server in a thread."""
    limits = Limits(files=6)
    service = Service(engine, limits, decoders=1)
    running = make_server(make_app(service, token=token, warm=False), service, limits)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.drain()
        thread.join(30)


@pytest.fixture(scope="module")
def address(engine):
    with served(engine) as address:
        yield address


@pytest.fixture(scope="module")
def images():
    """(name, type, base64) of a scene, sharp and blurred, of a TIFF, which no Chromium shows, and of what is no image."""
    scene = Image.fromarray(pristine_scene(3, 0, 128, 192))
    found = []
    for name, image in (
        ("sharp.png", scene),
        ("blurred.png", scene.filter(ImageFilter.GaussianBlur(4))),
        ("other.tif", scene),
    ):
        stream = io.BytesIO()
        image.save(stream, "TIFF" if name.endswith("tif") else "PNG")
        found.append(
            (name, "image/png" if name.endswith("png") else "image/tiff", base64.b64encode(stream.getvalue()).decode())
        )
    return [*found, ("=notes.txt", "text/plain", base64.b64encode(b"no image at all").decode())]


@pytest.fixture
def page(browser, address):
    """The page, which may ask nobody but its server; nothing in it may raise."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    asked, raised = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: raised.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#limits:not(:empty)")
    yield page
    assert [url for url in asked if not url.startswith((address + "/", "blob:", "data:"))] == [] and raised == []
    context.close()


def give(page, images, kind="drop"):
    page.evaluate(DROP, [kind, images])
    page.wait_for_selector("#progress", state="hidden", timeout=120_000)


def serious(page):
    """What axe-core calls serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    response = Axe().run(page).response
    assert len(response["passes"]) > 10  # it has looked
    found = response["violations"]
    return [
        (one["id"], [node["html"] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_dropped_images_get_scores_in_any_order(page, images):
    give(page, images)
    assert page.evaluate(NAMES) == ["sharp.png", "blurred.png", "other.tif", "=notes.txt"]
    sharp, blurred, other = page.evaluate(SCORES)
    assert sharp == other and sharp > blurred + 5
    page.select_option("#order", "worst")
    assert page.evaluate(NAMES)[0] == "blurred.png" and page.evaluate(NAMES)[-1] == "=notes.txt"
    page.select_option("#order", "name")
    assert page.evaluate(NAMES) == sorted(page.evaluate(NAMES))
    card = page.locator(".card", has_text="blurred.png")
    for words in ("90 % interval", "% of 9,999 photographs", "Likeliest:", "192 × 128 pixels"):
        assert words in card.inner_text().replace("\u00a0", " ")
    assert card.locator("img").evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [192, 128]
    assert page.locator(".card", has_text="other.tif").locator("img").evaluate("(image) => image.naturalWidth") == 192


def test_what_is_wrong_stands_beside_the_image(page, images):
    give(page, images)
    assert page.locator(".card.failed").count() == 1
    assert "not an image" in page.locator(".card", has_text="=notes.txt").locator(".problem").inner_text()
    assert page.locator("#said").inner_text() == "3 of 4 scored, 1 not"
    give(page, images)
    assert "2 of 4 images left out" in page.locator("#notice").inner_text()
    page.click("#clear")
    assert page.locator(".card").count() == 0


def test_heat_maps(page, images):
    give(page, images[:1], "paste")
    canvas = page.locator(".card canvas")
    assert canvas.is_hidden()
    page.click("#heat")
    assert canvas.is_visible() and page.locator("#legend").is_visible()
    alphas = canvas.evaluate(
        "(c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 3)"
    )
    assert np.std(alphas) > 1 and len(alphas) == 256 * 171
    page.click("#heat")
    assert canvas.is_hidden()


def test_two_side_by_side(page, images):
    give(page, images[:2])
    assert page.locator("#side").is_disabled()
    for box in page.locator(".pick input").all():
        box.check()
    page.click("#side")
    assert "The first is better by" in page.locator("#pair-said").inner_text()
    page.click("#pair-change")
    first, second = page.locator("#pair canvas").all()
    assert first.is_hidden() and second.is_visible()
    assert serious(page) == []
    page.keyboard.press("Escape")
    assert page.locator("#pair").is_hidden()


def test_the_csv(page, images):
    give(page, images)
    with page.expect_download() as download:
        page.click("#csv")
    with open(download.value.path(), encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["sharp.png", "blurred.png", "other.tif", "'=notes.txt"]  # no formula
    assert float(rows[0]["low"]) <= float(rows[0]["score"]) <= float(rows[0]["high"])
    assert rows[3]["score"] == "" and "not an image" in rows[3]["error"]


def test_by_keyboard_alone(page, images):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    page.set_input_files(
        "#files", [{"name": "a.png", "mimeType": "image/png", "buffer": base64.b64decode(images[0][2])}]
    )
    page.wait_for_selector(".card.done", timeout=120_000)
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.type"))
    assert reached == ["order", "heat", "csv", "clear", "checkbox"]  # two images are needed for the fourth button
    page.keyboard.press("Space")
    assert page.locator(".pick input").is_checked()


def test_a_busy_server_is_asked_again(page, images):
    answers = [429, 429]

    def answer(route):
        if not answers:
            route.continue_()
            return
        route.fulfill(status=answers.pop(), headers={"Retry-After": "0.1"}, json={"error": "busy"})

    page.route("**/v1/score*", answer)
    give(page, images[:1])
    assert page.locator(".card.done").count() == 1 and answers == []


def test_stop(page, images):
    page.route("**/v1/score*", lambda route: None)  # which is never answered
    page.evaluate(DROP, ["drop", images])
    page.wait_for_selector(".card.working")
    assert page.locator("#count").inner_text() == "0 of 4 scored"
    page.click("#stop")
    page.wait_for_selector("#progress", state="hidden")
    assert page.locator(".problem", has_text="stopped").count() == 4


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 1600])
def test_themes_and_widths(page, images, theme, width, tmp_path):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 800})
    give(page, images)
    page.click("#heat")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    background = np.asarray(Image.open(tmp_path / "page.png").convert("L"))[:, :5]
    assert (background.mean() < 60) == (theme == "dark")
    assert serious(page) == []


def test_a_token_unlocks_it(browser, engine):
    with served(engine, TOKEN) as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#locked:visible")
        assert page.locator("#drop").is_hidden() and serious(page) == []
        for word, wrong in (("something else", True), (TOKEN, False)):
            page.fill("#token", word)
            page.keyboard.press("Enter")
            page.wait_for_selector("#wrong:not(:empty)" if wrong else "#drop:visible")
        page.close()
        linked = browser.new_page()
        linked.goto(f"{address}/#token={TOKEN}")
        linked.wait_for_selector("#drop:visible")
        assert TOKEN not in linked.url
        linked.close()
