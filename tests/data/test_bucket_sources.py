"""Sources in a bucket are the local ones with another way to the bytes."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from contrique_jax.data.sources import open_source
from contrique_jax.errors import BrokenImage, UserError


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


def opened(spec, **options):
    return open_source(str(spec), **{"role": "pristine", "field": "data.pristine"} | options)


def test_a_folder_is_listed_like_a_local_one(gcs, tmp_path):
    """More objects than a page of a listing holds; what is hidden or no image is left out."""
    names = [f"{k % 3}/{k}.PNG" for k in range(20)] + ["a b/é.png", ".hidden/x.png", "._a.jpg", "notes.txt"]
    for k, name in enumerate(names):
        gcs.put("bucket", f"listed/{name}", png(k))
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(k))
    gcs.put("bucket", "listed_not/1.png", png(0))
    ours, local = opened("gs://bucket/listed/"), opened(tmp_path)
    assert [ours.item_name(i) for i in range(len(ours))] == [local.item_name(i) for i in range(len(local))]
    assert len(ours) == 21
    for i in range(len(ours)):
        np.testing.assert_array_equal(ours.load(i), local.load(i))


def test_broken_and_missing_images_are_named(gcs):
    gcs.put("bucket", "broken/1.png", b"text")
    gcs.put("bucket", "broken/2.png", png(2))
    source = opened("gs://bucket/broken")
    with pytest.raises(BrokenImage, match=r"gs://bucket/broken/1\.png: not an image"):
        source.load(0)
    del gcs.buckets["bucket"]["broken/2.png"]
    with pytest.raises(BrokenImage, match=r"gs://bucket/broken/2\.png: the file does not exist"):
        source.load(1)


def test_manifests_in_a_bucket_and_of_addresses(gcs, tmp_path):
    gcs.put("bucket", "manifest/in/1.png", png(1))
    gcs.put("bucket", "elsewhere/2.png", png(2))
    text = "\ufeffpath,class\nin/1.png,7\ngs://bucket/elsewhere/2.png,125\n"
    gcs.put("bucket", "manifest/list.csv", text.encode())
    source = opened("gs://bucket/manifest/list.csv")
    assert [source.load(i)[0, 0, 0, 0] for i in range(2)] == [1, 2] and source.classes.tolist() == [7, 125]
    (tmp_path / "here.png").write_bytes(png(3))
    (tmp_path / "list.csv").write_text("path\ngs://bucket/elsewhere/2.png\nhere.png\n")
    source = opened(tmp_path / "list.csv")
    assert [source.load(i)[0, 0, 0, 0] for i in range(2)] == [2, 3]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("gs://bucket/nothing", "holds no images"),
        ("gs://bucket/nothing.csv", "does not exist"),
        ("gs://no-such-bucket/clean", "there is no such bucket"),
        ("gs://secret/clean", "no credentials that it accepts"),
        ("gs://B/clean", "no address in a bucket"),
        ("s3://bucket/clean", "only gs://BUCKET/PATH is understood"),
        ("arrays:gs://bucket/a.npy", "cannot be memory-mapped"),
        ("gs://bucket/set", "give gs://bucket/set/manifest.csv"),
        ("gs://bucket/latin.csv", "csv file in UTF-8"),
    ],
)
def test_a_source_that_cannot_be_opened_is_one_sentence(gcs, spec, says):
    gcs.put("bucket", "set/distort.json", b"{}")
    gcs.put("bucket", "latin.csv", "path\né.png\n".encode("latin-1"))
    with pytest.raises(UserError, match=says) as caught:
        opened(spec)
    message = str(caught.value)
    assert message.startswith("data.pristine: ") and message.endswith(".") and "\n" not in message


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"pip install 'contrique-jax\[gcs\]'"):
        opened("gs://bucket/clean")
