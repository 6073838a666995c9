"""What the documentation shows is true: every command and Python block runs, every link leads somewhere."""

from __future__ import annotations

import os
import re
import shlex
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from contrique_jax import cli
from contrique_jax.errors import run_verb

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("index", "train", "evaluate", "score", "python")),
]  # as they build on
EVERY_PAGE = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
# what a reader's machine would train for hours, and a test for two steps
SHORT = {
    "contrique_head.py": "train.steps=2 data.batch_size=4 data.view_size=32 data.loader=threads",
    "contrique_resnet50.py": "train.steps=2 data.batch_size=4 data.view_size=64 data.loader=threads model.encoder=resnet10 "
    "model.base_width=4",
}
BEFORE_AND_AFTER = (["pip", "install", "."], ["head", "-4", "scores.csv"])
BLOCK = re.compile(r"(?P<why><!-- not run: [^>]+ -->\n)?```(?P<kind>sh|python|console)\n(?P<text>.*?)```", re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    kind: str
    text: str
    not_run: bool


def blocks(page: str) -> list[Block]:
    found = BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
    return [Block(match["kind"], match["text"], match["why"] is not None) for match in found]


def commands(block: Block) -> list[list[str]]:
    """The words of each command line, lines that end in a backslash joined, comments left out."""
    text = block.text.replace("\\\n", " ")
    if block.kind == "console":
        text = "\n".join(line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader stands: PHOTOS with clean and other ones, and opinions.csv of 40."""
    place = tmp_path_factory.mktemp("reader")
    generator = np.random.default_rng(0)
    for name, count in (("clean", 8), ("mine", 40)):
        (place / "PHOTOS" / name).mkdir(parents=True)
        for i in range(count):
            smooth = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            photograph = Image.fromarray(smooth).resize((96, 72), Image.Resampling.BICUBIC)
            photograph.save(place / "PHOTOS" / name / f"{i}.png")
    rows = [f"PHOTOS/mine/{i}.png,{generator.uniform(1, 5):.2f}" for i in range(40)]
    (place / "opinions.csv").write_text("\n".join(["path,mos", *rows]) + "\n")
    return place


def shortened(words: list[str]) -> list[str]:
    if words[0] != "train" or "--print_config" in words:
        return words
    config = words[words.index("--config") + 1].partition(":")[0]
    return [*words, "--devices=1", "--distributed=off", *(f"--config.{field}" for field in SHORT[config].split())]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(page, folder, monkeypatch, capsys):
    """In the folder of a reader who has followed the pages before it. Trainings are cut to two steps of a small network."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for block in blocks(page):
        if block.not_run:
            continue
        if block.kind == "python":
            exec(compile(block.text, page, "exec"), {})
            continue
        for program, *words in commands(block):
            if [program, *words] in (["pip", "install", "."], ["head", "-4", "scores.csv"]):
                continue
            assert program == "contrique-jax", f"{page}: {program} {shlex.join(words)} is neither run nor marked"
            assert run_verb(cli.main, shortened(words)) == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.name)
def test_what_is_not_run_is_marked(page):
    name = str(page.relative_to(ROOT))
    assert name in PAGES or all(block.not_run for block in blocks(name))


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.name)
def test_flags_that_pages_name_exist(page, verbs_flags):
    for block in blocks(str(page.relative_to(ROOT))):
        if block.kind == "python":
            continue
        for program, *words in commands(block):
            if program != "contrique-jax" or not words or words[0] == "convert":
                continue
            named = {
                word.partition("=")[0] for word in words if word.startswith("--") and not word.startswith("--config")
            }
            assert named <= verbs_flags(words[0]), f"{page.name}: contrique-jax {words[0]} has no {named}"


@pytest.fixture(scope="module")
def verbs_flags():
    import contextlib
    import functools
    import io

    @functools.cache
    def flags(verb: str) -> set[str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            cli.main([verb, "--help"])
        return set(re.findall(r"--[a-z_][a-z_-]*", said.getvalue()))

    return flags


def anchors(page: Path) -> set[str]:
    """Those that GitHub gives to headings."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL), re.M
    )
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        address, _, anchor = urllib.parse.unquote(link).partition("#")
        if re.match(r"https?:|mailto:", address):
            continue
        target = page if not address else Path(os.path.normpath(page.parent / address))
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.slow
def test_the_site_builds_and_asks_nothing_of_the_network(tmp_path):
    """`make docs`; strict: a page without a place, or an object of the reference that is not there, is an error."""
    build, config = pytest.importorskip("mkdocs.commands.build"), pytest.importorskip("mkdocs.config")
    build.build(config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)))
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) > 15
    for page in pages:
        asked = re.findall(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=\"(https?:[^\"]+)", page.read_text())
        assert not [address for address in asked if "canonical" not in address], page.name
