"""Sources of every kind, and what they say when they cannot be opened or read."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrique_jax.data.image_files import find_images, list_images
from contrique_jax.data.scenes import authentic_scene, pristine_scene
from contrique_jax.data.sources import CachedSource, open_source
from contrique_jax.errors import BrokenImage, UserError


def save(path, value: int = 100, size=(12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def opened(spec, **options):
    return open_source(str(spec), **{"role": "pristine", "field": "data.pristine"} | options)


def complaint(spec, **options) -> str:
    with pytest.raises(UserError) as caught:
        opened(spec, **options)
    message = str(caught.value)
    assert message.startswith("data.pristine: ") and message.endswith(".") and "\n" not in message
    return message


# folders


def test_folder_is_recursive_sorted_and_takes_images_only(tmp_path):
    for k, name in enumerate(["b/2.png", "b/10.png", "a.JPG", "c.Jpeg", "b.webp", "é.png"]):
        save(tmp_path / name, value=10 * k)
    save(tmp_path / ".hidden" / "x.png")
    save(tmp_path / "._a.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    source = opened(tmp_path)
    names = [source.item_name(i) for i in range(len(source))]
    assert names == ["a.JPG", "b.webp", "b/10.png", "b/2.png", "c.Jpeg", "é.png"]
    assert source.load(3)[0, 0, 0, 0] == 0 and source.load(3).shape == (1, 8, 12, 3)
    assert source.name == str(tmp_path)


def test_folder_follows_links_but_no_loop(tmp_path):
    save(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    source = opened(tmp_path / "set")
    assert [source.item_name(i) for i in range(len(source))] == ["linked/1.png"]


def test_folder_that_is_missing_or_empty(tmp_path):
    assert "does not exist" in complaint(tmp_path / "nowhere")
    assert "holds no images" in complaint(tmp_path)
    assert "no source is given" in complaint("")


def close(monkeypatch, name):
    """Folders of that name may not be listed. Root reads everything: the system's answer is given in its place."""
    scandir = os.scandir

    def closed(path):
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)


def test_folder_that_may_not_be_read(tmp_path, monkeypatch):
    save(tmp_path / "closed" / "1.png")
    close(monkeypatch, "closed")
    assert "cannot be listed" in complaint(tmp_path)


def test_unknown_forms(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK")
    assert "neither a folder nor a .csv manifest" in complaint(tmp_path / "set.zip")
    assert "does not exist" in complaint("hdf5:things")


def test_broken_files_are_found_when_loaded_not_when_opened(tmp_path):
    save(tmp_path / "1.png")
    (tmp_path / "2.jpg").write_bytes(b"")
    (tmp_path / "3.jpg").write_text("text")
    (tmp_path / "4.png").symlink_to(tmp_path / "gone.png")
    source = opened(tmp_path)
    assert len(source) == 4
    assert source.load(0).shape == (1, 8, 12, 3)
    for i, why in [(1, "empty"), (2, "not an image"), (3, "does not exist")]:
        with pytest.raises(BrokenImage, match=why) as caught:
            source.load(i)
        assert source.item_name(i) in caught.value.name


def test_limit_on_pixels(tmp_path):
    save(tmp_path / "1.png")
    with pytest.raises(BrokenImage, match="limit"):
        opened(tmp_path, max_pixels=95).load(0)


# manifests


def test_manifest_in_its_own_order_relative_to_its_folder(tmp_path):
    save(tmp_path / "set" / "b.png", 1)
    save(tmp_path / "set" / "a,1.png", 2)
    save(tmp_path / "other.png", 3)
    manifest = tmp_path / "set" / "list.csv"
    manifest.write_text(f'\ufeffmos, path\n1,b.png\n\n2,"a,1.png"\n3,{tmp_path / "other.png"}\n4,gone.png\n', "utf-8")
    source = opened(manifest)
    assert [source.load(i)[0, 0, 0, 0] for i in range(3)] == [1, 2, 3]
    assert source.item_name(1) == "a,1.png" and len(source) == 4
    with pytest.raises(BrokenImage, match="does not exist"):
        source.load(3)


@pytest.mark.parametrize(
    "text,words",
    [
        ("", "columns found: none"),
        ("file,mos\na,1\n", "columns found: file, mos"),
        ("img_path,mos\na,1\n", "is it 'img_path'? call that 'path'"),
        ("path,mos,path\na,1,b\n", "2 columns are called 'path' (columns 1 and 3)"),
        ("path,mos\n", "no rows"),
        ("mos,path\n1,a.png\n2\n", "line 3"),
        ("mos,path\n1,\n", "line 2"),
    ],
)
def test_manifest_with_a_mistake(tmp_path, text, words):
    manifest = tmp_path / "list.csv"
    manifest.write_text(text)
    message = complaint(manifest)
    assert words in message and str(manifest) in message


def test_a_column_of_classes_is_read_for_the_pristine_role_only(tmp_path):
    manifest = tmp_path / "list.csv"
    manifest.write_text("class,path\n125,a.png\n\n0, b.png\n 7 ,c.png\n")
    source = opened(manifest)
    assert source.classes.tolist() == [125, 0, 7] and source.classes.dtype == np.int16
    assert [source.item_name(i) for i in range(3)] == ["a.png", "b.png", "c.png"]
    assert opened(manifest, role="authentic").classes is None
    for spec in (tmp_path, "scenes:2"):
        save(tmp_path / "a.png")
        assert opened(spec).classes is None


@pytest.mark.parametrize("text", ["", "126", "-1", "3.0", "cat", "1" * 5000])
def test_a_class_that_is_none(tmp_path, text):
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,class\na.png,3\nb.png,{text}\n")
    message = complaint(manifest)
    assert f"{manifest}, line 3" in message and "0 to 125" in message
    manifest.write_text("path,class\na.png,3\nb.png\n")
    assert "line 3: 1 values for 2 columns" in complaint(manifest)
    manifest.write_text("path;class\na.png;3\nb.png;125\n")
    assert opened(manifest).classes.tolist() == [3, 125] and opened(manifest, role="authentic").classes is None


def test_manifest_that_is_no_text_or_missing(tmp_path):
    save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.csv")
    assert "cannot be read as a csv" in complaint(tmp_path / "photo.csv")
    assert "does not exist" in complaint(tmp_path / "gone.csv")


def test_a_manifest_of_many_rows_is_small(tmp_path):
    manifest = tmp_path / "many.csv"
    rows = 200_000
    manifest.write_text("path,class\n" + "".join(f"images/photograph_{i:07d}.jpg,{i % 126}\n" for i in range(rows)))
    tracemalloc.start()
    try:
        source = opened(manifest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.classes.nbytes == 2 * rows and source.classes[-1] == (rows - 1) % 126
    assert len(source) == rows and source.item_name(rows - 1) == "images/photograph_0199999.jpg"
    assert peak < 40e6


def test_real_photographs(shared):
    source = opened(shared / "data" / "pristine" / "manifest.csv")
    assert len(source) == 711
    assert min(source.load(0).shape[1:3]) > 200
    assert len(opened(shared / "data" / "pristine")) == 711


# arrays


def test_arrays_are_memory_mapped(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    source = opened(f"arrays:{tmp_path / 'images.npy'}")
    assert len(source) == 5 and source.item_name(2).endswith("images.npy[2]")
    image = source.load(2)
    np.testing.assert_array_equal(image, images[2:3])
    image[:] = 0
    np.testing.assert_array_equal(source.load(2), images[2:3])


@pytest.mark.parametrize(
    "shape,dtype", [((5, 6, 7), "uint8"), ((5, 6, 7, 3), "float32"), ((5, 6, 7, 4), "uint8"), ((0, 6, 7, 3), "uint8")]
)
def test_arrays_of_a_wrong_shape_or_type(tmp_path, shape, dtype):
    np.save(tmp_path / "x.npy", np.zeros(shape, dtype))
    assert "uint8 [N, H, W, 3] is needed" in complaint(f"arrays:{tmp_path / 'x.npy'}")


def test_arrays_that_are_no_array(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "several.npz", a=np.zeros(3), b=np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    assert "does not exist" in complaint(f"arrays:{tmp_path / 'gone.npy'}")
    for name in ("text.npy", "empty.npy", "objects.npy"):
        assert "cannot be read" in complaint(f"arrays:{tmp_path / name}")
    assert "several arrays" in complaint(f"arrays:{tmp_path / 'several.npz'}")
    np.save(tmp_path / "cut.npy", np.zeros((4, 8, 8, 3), np.uint8))
    data = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(data[:300])
    assert "cannot be read" in complaint(f"arrays:{tmp_path / 'cut.npy'}")


# scenes


def test_scenes_follow_the_role_and_the_seed():
    source = opened("scenes:3", seed=4)
    assert len(source) == 3 and source.item_name(1) == "scenes:3[1]"
    np.testing.assert_array_equal(source.load(1)[0], pristine_scene(4, 1))
    np.testing.assert_array_equal(opened("scenes:3@9", seed=4).load(1)[0], pristine_scene(9, 1))
    np.testing.assert_array_equal(opened("scenes:3", role="authentic").load(2)[0], authentic_scene(0, 2))


@pytest.mark.parametrize(
    "spec", ["scenes:", "scenes:many", "scenes:0", "scenes:-4", "scenes:3@", "scenes:3@x", "scenes:1.5"]
)
def test_scenes_with_a_mistake(spec):
    assert spec in complaint(spec)


# kept in memory


class CountingSource:
    """Images of 12 bytes, and how often each was loaded; number 3 is broken."""

    name, classes, labels = "counting", None, None

    def __init__(self):
        self.loads = [0] * 5

    def __len__(self):
        return 5

    def item_name(self, i):
        return f"counting[{i}]"

    def load(self, i):
        self.loads[i] += 1
        if i == 3:
            raise BrokenImage("counting[3]", "it always is")
        return np.full((2, 2, 3), i, np.uint8)


def test_decoded_images_are_kept_up_to_the_limit():
    counting = CountingSource()
    source = CachedSource(counting, limit=25)  # two images
    for _ in range(3):
        for i in (0, 1, 2, 4):
            np.testing.assert_array_equal(source.load(i), np.full((2, 2, 3), i))
        with pytest.raises(BrokenImage, match="it always is"):
            source.load(3)
    assert counting.loads == [1, 1, 3, 3, 3]
    assert (len(source), source.name, source.item_name(2)) == (5, "counting", "counting[2]")


# TensorFlow Datasets


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny data set, prepared in both file formats; returns the folder and its images."""
    tfds = pytest.importorskip("tensorflow_datasets")
    images = [np.full((6 + i, 9, 3), 20 * i, np.uint8) for i in range(9)]

    def encoded(image: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        return stream.getvalue()

    class TinyPhotos(tfds.core.GeneratorBasedBuilder):
        pkg_dir_path = tmp_path_factory.mktemp("package")  # where it would look for its own files
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(), "mask": tfds.features.Image(), "label": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0, 7), "broken": self._generate_examples(7, 9)}

        def _generate_examples(self, first, last):
            for i in range(first, last):
                image = io.BytesIO(b"no image" if first else encoded(images[i]))
                yield i, {"image": image, "mask": images[0], "label": f"photo {i}"}

    folders = {}
    for kind in ("tfrecord", "array_record"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        TinyPhotos(data_dir=folders[kind], file_format=kind).download_and_prepare()
    return folders, images[:7]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_tensorflow_data_sets(prepared, monkeypatch, kind):
    folders, images = prepared
    monkeypatch.setenv("TFDS_DATA_DIR", str(folders[kind]))
    source = opened("tfds:tiny_photos/train")
    assert len(source) == 7 and source.item_name(3) == "tfds:tiny_photos/train[3]"
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(source.load, list(range(7)) * 8))
    heights = [stack.shape[1] for stack in loaded[:7]]
    assert sorted(heights) == [6, 7, 8, 9, 10, 11, 12]
    for i, (image,) in enumerate(loaded):
        np.testing.assert_array_equal(image, images[heights[i % 7] - 6])
    part = opened("tfds:tiny_photos:1.0.0/train[2:5]")
    assert len(part) == 3
    np.testing.assert_array_equal(part.load(0), source.load(2))
    with pytest.raises(BrokenImage, match=r"tfds:tiny_photos/broken\[1\]: not an image"):
        opened("tfds:tiny_photos/broken").load(1)


@pytest.mark.slow
def test_tensorflow_data_sets_with_a_mistake(prepared, monkeypatch):
    folders, _ = prepared
    monkeypatch.setenv("TFDS_DATA_DIR", str(folders["tfrecord"]))
    assert "splits found: " in complaint("tfds:tiny_photos/validation")
    for name in ("mnist", "no_such_set", "tiny_photos:9.0.0", "Bad Name!"):
        message = complaint(f"tfds:{name}/train")
        assert "no prepared TensorFlow data set" in message and name in message
    shard = next(folders["tfrecord"].rglob("*train.tfrecord*"))
    data = shard.read_bytes()
    try:
        shard.write_bytes(data[: len(data) // 2])
        assert "incomplete" in complaint("tfds:tiny_photos/train")
        shard.unlink()
        assert "incomplete" in complaint("tfds:tiny_photos/train")
    finally:
        shard.write_bytes(data)


def test_tensorflow_data_sets_of_a_wrong_form():
    for spec in ("tfds:", "tfds:mnist", "tfds:mnist/", "tfds:/train"):
        assert "should read tfds:NAME/SPLIT" in complaint(spec)


def test_tensorflow_data_sets_that_are_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "install them or name a folder" in complaint("tfds:mnist/train")


def test_other_sources_import_no_tensorflow(tmp_path):
    code = (
        "import sys\n"
        "from contrique_jax.data.sources import open_source\n"
        "open_source('scenes:2', role='authentic', field='data.authentic').load(0)\n"
        "assert not [m for m in sys.modules if m.startswith(('tensorflow', 'torch', 'cv2'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# paths of the command line


def test_list_images_takes_files_folders_and_globs_once_in_order(tmp_path, monkeypatch):
    for name in ("z.png", "set/2.png", "set/1.png", "set/deep/3.jpg", "odd[1].png", "photo.dat"):
        save(tmp_path / name) if name != "photo.dat" else (tmp_path / name).write_bytes(b"")
    (tmp_path / "set" / "notes.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    assert [str(p) for p in list_images(["z.png", "set", "set/1.png", str(tmp_path / "z.png")])] == [
        "z.png",
        "set/1.png",
        "set/2.png",
        "set/deep/3.jpg",
    ]
    assert [str(p) for p in list_images(["set/*.png"])] == ["set/1.png", "set/2.png"]
    assert [p.name for p in list_images(["set/**/*"])] == ["1.png", "2.png", "3.jpg"]
    assert [str(p) for p in list_images(["odd[1].png", "photo.dat"])] == ["odd[1].png", "photo.dat"]


def test_list_images_names_the_path_that_matches_nothing(tmp_path):
    save(tmp_path / "1.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    for path in ("gone.png", "*.jpg", "empty", "*.txt"):
        with pytest.raises(UserError, match="no image") as caught:
            list_images([str(tmp_path / "1.png"), str(tmp_path / path)])
        assert str(tmp_path / path) in str(caught.value)


# what listings pass by


def test_what_looks_like_a_photograph_and_is_not_read_is_counted_and_named(tmp_path, capsys):
    save(tmp_path / "a.png")
    for name in ("IMG.DNG", "sub/b.cr2", "c.jxl", "notes.txt", ".hidden.nef"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"raw")
    for found in (find_images([str(tmp_path)]), find_images([f"{tmp_path}/*", str(tmp_path)])):
        assert [path.name for path in found.files] == ["a.png"] and not found.named
        found.left_out.say()
        said = capsys.readouterr().err
        assert (
            said.startswith("warning: 3 photographs were left out, in formats that are not read: ")
            and "IMG.DNG" in said
        )
    assert opened(tmp_path).left_out.photographs
    for listing in (find_images, lambda paths: opened(*paths)):
        with pytest.raises(UserError, match=r"no images .*1 photograph was left out.*b\.cr2"):
            listing([str(tmp_path / "sub")])


def test_files_that_are_named_are_told_from_those_in_folders(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    found = find_images([str(tmp_path), str(tmp_path / "b.png"), f"{tmp_path}/*.png"])
    assert [path.name for path in found.files] == ["a.png", "b.png"] and found.named == {tmp_path / "b.png"}


def test_a_subfolder_that_may_not_be_listed_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    save(tmp_path / "lost+found" / "b.png")
    close(monkeypatch, "lost+found")
    assert len(opened(tmp_path)) == 1
    found = find_images([str(tmp_path)])
    assert len(found.files) == 1
    assert found.left_out.sentences() == [
        f"1 folder was left out that cannot be listed: {tmp_path}/lost+found (Permission denied)"
    ]
