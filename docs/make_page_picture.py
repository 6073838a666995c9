"""Makes images/page.png: the page of `contrique-jax serve` with three photographs, each as it is and, below, with one fault.

Needs Chromium, playwright and scikit-image, whose photographs anyone may use (a cup and a cat are CC0, the astronaut is
NASA's and in the public domain).

python docs/make_page_picture.py
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from playwright.sync_api import FilePayload, sync_playwright
from skimage import data

PICTURE = Path(__file__).parent / "images" / "page.png"
WIDTH, HEIGHT, COLOURS = 940, 900, 256


def photographs() -> dict[str, Image.Image]:
    """By name: whole ones and what became of them."""
    cup, cat, portrait = (Image.fromarray(each()[..., :3]) for each in (data.coffee, data.chelsea, data.astronaut))
    blurred = cup.copy()
    left = (0, 0, cup.width // 2, cup.height)
    blurred.paste(cup.crop(left).filter(ImageFilter.GaussianBlur(4)), left)
    stream = io.BytesIO()
    cat.save(stream, "JPEG", quality=9)
    noise = np.random.default_rng(0).normal(0, 30, np.asarray(portrait).shape)
    noisy = Image.fromarray(np.clip(np.asarray(portrait) + noise, 0, 255).astype(np.uint8))
    return {
        "cup.png": cup, "cat.png": cat, "portrait.png": portrait,
        "cup, left half blurred.png": blurred, "cat, JPEG at 9.png": Image.open(stream), "portrait, noise.png": noisy,
    }  # fmt: skip


def upload(name: str, image: Image.Image) -> FilePayload:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": stream.getvalue()}


def main() -> None:
    command = [sys.executable, "-m", "contrique_jax.serve", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://[\d.:]+", server.stderr.readline() if server.stderr else "")
        assert address, "the server did not start"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(address[0])
            page.wait_for_selector("#limits:not(:empty)")
            page.set_input_files("#files", [upload(name, image) for name, image in photographs().items()])
            page.wait_for_selector(".card.done:nth-child(6)", timeout=300_000)
            page.wait_for_selector("#progress", state="hidden")
            page.click("#heat")
            shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            browser.close()
    finally:
        server.terminate()
        server.wait(60)
    shot.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT).save(PICTURE, optimize=True)
    print(PICTURE, shot.size, PICTURE.stat().st_size)


if __name__ == "__main__":
    main()
