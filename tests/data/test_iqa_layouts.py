"""Public data sets read from the layouts that their authors distribute, built here in miniature."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from miniature_sets import MINIATURES, lines, picture, workbook
from PIL import Image
from scipy.io import loadmat, savemat

from contrique_jax.data.iqa_sets import read_set
from contrique_jax.data.iqa_sets.layouts import LAYOUTS, Shelf, layout_of
from contrique_jax.data.sizes import to_shorter_side
from contrique_jax.errors import UserError


def made(name, folder):
    MINIATURES[name](folder)
    return folder


def complaint(name, folder, **flags) -> str:
    with pytest.raises(UserError) as caught:
        read_set(name, folder, **flags)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def swap(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


# images, groups, subsets, parts, has deviations, images of the whole set
EXPECTED = {
    "live": (883, 2, {"jp2k", "jpeg", "wn", "gblur", "fastfading"}, None, True, 779),
    "csiq": (24, 2, {"noise", "jpeg", "jpeg 2000", "fnoise", "blur", "contrast"}, None, True, 866),
    "tid2013": (8, 2, {"white noise", "sparse sampling"}, None, True, 3000),
    "kadid10k": (8, 2, {"gaussian blur", "contrast change"}, None, True, 10125),
    "koniq10k": (3, 3, None, ["train", "validation", "test"], False, 10073),
    "clive": (3, 3, None, None, True, 1162),
    "flive": (
        4,
        4,
        {"voc_emotic_ava", "blur_dataset", "EE371R"},
        ["train", "validation", "train", "test"],
        False,
        39810,
    ),
    "spaq": (3, 3, None, None, False, 11125),
    "pipal": (8, 2, {"00", "06"}, None, False, 23200),
    "agiqa3k": (6, 2, {"AttnGAN", "midjourney", "xl2.2"}, None, True, 2982),
    "biq2021": (3, 3, {"ss01", "ss02", "ss03"}, ["train", "train", "test"], False, 12000),
}

# the last row: image, score, deviation, group, subset, reference
LAST = {
    "live": ("fastfading/img174.bmp", 90, 6, "plane.bmp", "fastfading", "refimgs/plane.bmp"),
    "csiq": ("dst_imgs/contrast/family.contrast.2.png", 0.94, 0.07, "family", "contrast", "src_imgs/family.png"),
    "tid2013": ("distorted_images/i25_24_5.bmp", 2, 0.137, "I25", "sparse sampling", "reference_images/i25.bmp"),
    "kadid10k": ("images/I02_25_05.png", 1.24, 0.75, "I02.png", "contrast change", "images/I02.png"),
    "koniq10k": ("1024x768/99.jpg", 68.7, None, "99.jpg", None, None),
    "clive": ("Images/1164.JPG", 90, 20, "1164.JPG", None, None),
    "flive": ("voc_emotic_ava/EMOTIC__a.jpg", 72.4, None, "voc_emotic_ava/EMOTIC__a.jpg", "voc_emotic_ava", None),
    "spaq": ("TestImage/00003.png", 36.53, None, "00003.png", None, None),
    "pipal": ("Distortion_4/A0002_06_11.bmp", 1426.5, None, "A0002", "06", "Train_Ref/A0002.bmp"),
    "agiqa3k": ("xl2.2_normal_001.jpg", 3.47, 0.25, "robots, close-up", "xl2.2", None),
    "biq2021": ("Images/ss02 (1491).jpg", 0.4559, None, "ss02 (1491).jpg", "ss02", None),
}


def test_every_layout_has_a_miniature():
    assert set(EXPECTED) == set(LAST) == set(LAYOUTS) == set(MINIATURES)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read(name, tmp_path):
    layout = LAYOUTS[name]
    images = read_set(layout.name, made(name, tmp_path), with_references=bool(layout.references))
    count, groups, subsets, parts, deviations, full_size = EXPECTED[name]
    assert len(images) == len(images.scores) == len(images.groups) == count and len(set(images.groups)) == groups
    assert (None if images.subsets is None else set(images.subsets)) == subsets and images.official_split == parts
    assert (images.deviations is not None) == deviations and images.full_size == full_size
    assert images.folder == (tmp_path / "database" if name == "flive" else tmp_path)
    assert images.name == layout.name and images.score_column == layout.score
    assert images.higher_is_better == (name not in ("live", "csiq"))
    assert images.score_range == layout.score_range and images.shorter_side == (512 if name == "spaq" else None)
    for path in images.paths + (images.references or []):
        assert Image.open(path).size == (8, 6)
    if layout.references:
        assert len(set(images.references)) == groups  # one a group
        assert len(set(zip(images.groups, images.references, strict=True))) == groups
    else:
        assert images.references is None
    if layout.score_range:
        assert layout.score_range[0] <= images.scores.min() < images.scores.max() <= layout.score_range[1]
    path, score, deviation, group, subset, reference = LAST[name]
    assert images.paths[-1] == images.folder / path and images.scores[-1] == pytest.approx(score)
    assert images.groups[-1] == group and (None if images.subsets is None else images.subsets[-1]) == subset
    assert images.references is None or images.references[-1] == images.folder / reference
    assert images.deviations is None or images.deviations[-1] == pytest.approx(deviation)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_part_of_a_set_is_these_rows_of_every_column(name, tmp_path):
    images = read_set(name, made(name, tmp_path), with_references=bool(LAYOUTS[name].references))
    part = images.subset([2, 0])
    for field in dataclasses.fields(images):
        whole, some = getattr(images, field.name), getattr(part, field.name)
        if isinstance(whole, list | np.ndarray):
            assert list(some) == [whole[2], whole[0]], field.name
        else:
            assert some == whole, field.name


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_incomplete_folder_says_what_is_missing(name, tmp_path):
    layout = LAYOUTS[name]
    folder = made(name, tmp_path / "set")
    flags = {"with_references": bool(layout.references)}
    empty = tmp_path / "empty"
    empty.mkdir()
    message = complaint(name, empty)
    assert (
        message.startswith(f"--images: {empty} does not hold {layout.name}")
        and f"missing: {layout.tables[0][0]}" in message
    )
    assert "there is no folder" in complaint(name, tmp_path / "absent", field="--images")
    for path in {path for names in layout.tables for path in folder.rglob(names[0])}:
        path.rename(folder / "elsewhere")
    assert f"missing: {layout.tables[0][0]}" in complaint(name, folder, **flags)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if LAYOUTS[name].image_folders[0] != "."])
def test_a_missing_folder_of_images_is_named(name, tmp_path):
    layout = LAYOUTS[name]
    folder = made(name, tmp_path)
    for image_folder in layout.image_folders:
        shutil.rmtree(folder / image_folder, ignore_errors=True)
    assert f"missing: {layout.image_folders[0]}/" in complaint(name, folder)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if LAYOUTS[name].references])
def test_references_are_needed_only_where_they_are_asked_for(name, tmp_path):
    folder = made(name, tmp_path)
    images = read_set(name, folder, with_references=True)
    for reference in set(images.references):
        reference.unlink()
    plain = read_set(name, folder)
    assert plain.references is None and plain.groups == images.groups
    message = complaint(name, folder, with_references=True)
    assert f"({len(images)} of {len(images)} rows of {LAYOUTS[name].name} have none)" in message
    if LAYOUTS[name].reference_folders != LAYOUTS[name].image_folders:
        shutil.rmtree(folder / LAYOUTS[name].reference_folders[0])
        assert f"missing: {LAYOUTS[name].reference_folders[0]}/" in complaint(name, folder, with_references=True)


def test_full_reference_needs_references(tmp_path):
    assert "KonIQ-10k has no pristine images" in complaint("koniq10k", made("koniq10k", tmp_path), with_references=True)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_image_is_counted_and_named(name, tmp_path):
    folder = made(name, tmp_path)
    images = read_set(name, folder)
    for path in images.paths[1:3]:
        path.unlink()
    message = complaint(name, folder)
    assert f"(2 of {len(images)} rows of {LAYOUTS[name].name} have none)" in message
    assert images.paths[1].name.lower() in message.lower()


def test_names_of_data_sets(tmp_path):
    assert layout_of("kadid10k") is layout_of("KADID-10k") is layout_of("Kadid_10K")
    with pytest.raises(
        UserError, match=r"--dataset: there is no data set 'AVA' \(known: LIVE, CSIQ, .*\); read any other"
    ):
        read_set("AVA", tmp_path)
    with pytest.raises(UserError, match=r"--cross: there is no data set 'AVA' .* from a csv\.$"):
        read_set("AVA", tmp_path, field="--cross")


def test_an_archive_may_have_a_folder_of_its_own(tmp_path):
    made("clive", tmp_path / "ChallengeDB_release")
    assert len(read_set("CLIVE", tmp_path)) == 3
    shutil.rmtree(tmp_path / "ChallengeDB_release" / "Images")
    assert f"{tmp_path / 'ChallengeDB_release'} does not hold CLIVE" in complaint("clive", tmp_path)


def test_live_leaves_out_copies_of_the_references_and_prefers_realigned_scores(tmp_path):
    images = read_set("live", made("live", tmp_path))
    orgs = loadmat(tmp_path / "dmos_realigned.mat")["orgs"][0]
    assert len(images) == 982 - orgs.sum() and images.scores.min() > 0
    assert images.paths[0] == tmp_path / "jp2k" / "img2.bmp" and images.groups[0] == "plane.bmp"
    assert images.subsets.index("jpeg") == 227 - orgs[:227].sum() and images.deviations[0] == 5 + 1 / 981
    (tmp_path / "dmos_realigned.mat").unlink()
    older = read_set("live", tmp_path)
    np.testing.assert_allclose(older.scores, images.scores + 1)
    assert older.deviations is None and older.paths == images.paths


def test_matlab_files_with_a_mistake(tmp_path):
    made("live", tmp_path)
    orgs, scores = np.zeros((1, 982)), np.linspace(1, 2, 982)[None]
    path = tmp_path / "dmos_realigned.mat"
    savemat(path, {"dmos_new": scores[:, :900], "dmos_std": scores, "orgs": orgs})
    assert "dmos_new has 900 entries, 982 are expected" in complaint("live", tmp_path)
    savemat(path, {"dmos": scores, "orgs": orgs})
    assert "there is no variable 'dmos_new' (variables found: dmos, orgs)" in complaint("live", tmp_path)
    savemat(path, {"dmos_new": np.where(scores < 1.5, scores, np.nan), "dmos_std": scores, "orgs": orgs})
    assert "dmos_realigned.mat, entry 492: dmos is 'nan'" in complaint("live", tmp_path)
    savemat(path, {"dmos_new": np.full((1, 982), 7.0), "dmos_std": scores, "orgs": orgs})
    assert "every dmos is 7; scores that do not vary" in complaint("live", tmp_path)
    data = path.read_bytes()
    for damaged in (b"", b"no matlab file " * 40, data[: len(data) // 2]):
        path.write_bytes(damaged)
        assert "cannot be read as a MATLAB file" in complaint("live", tmp_path)


def test_other_versions_of_the_tables(tmp_path):
    koniq = made("koniq10k", tmp_path / "koniq")
    (koniq / "1024x768").rename(koniq / "512x384")
    assert read_set("koniq10k", koniq).paths[0].parent.name == "512x384"
    (koniq / "koniq10k_distributions_sets.csv").unlink()
    rows = ("10004473376.jpg,3.8,77.4", "826373.jpg,2,31")
    lines(koniq / "koniq10k_scores_and_distributions.csv", "image_name,MOS,MOS_zscore", *rows)
    images = read_set("koniq10k", koniq)
    assert images.scores.tolist() == [77.4, 31] and images.official_split is None

    flive = made("flive", tmp_path / "flive")
    (flive / "database" / "labels_image.csv").rename(flive / "labels_image.csv")
    images = read_set("flive", flive)
    assert len(images) == 4 and images.official_split is None and images.paths[0].parents[1] == flive / "database"

    tid = made("tid2013", tmp_path / "tid")
    (tid / "mos_std.txt").unlink()
    assert read_set("tid2013", tid).deviations is None

    biq = made("biq2021", tmp_path / "biq")
    for part in ("Train", "Test"):
        (biq / f"{part} (Images and MOS).csv").rename(biq / f"{part}.csv")
    assert read_set("biq2021", biq).official_split == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("name", "table", "old", "new", "says"),
    [
        ("kadid10k", "dmos.csv", "I01.png,4.04", "I01.png,", "dmos.csv, line 2: dmos is ''"),
        ("kadid10k", "dmos.csv", "I01.png,4.04", "I01.png,nan", "dmos.csv, line 2: dmos is 'nan'"),
        ("kadid10k", "dmos.csv", "I01.png,4.04", "I01.png,good", "dmos.csv, line 2: dmos is 'good'"),
        ("kadid10k", "dmos.csv", "dmos,var", "mos,var", "no row names the columns dist_img, ref_img, dmos, var"),
        (
            "kadid10k",
            "dmos.csv",
            "I01_25_01.png",
            "flower.png",
            "line 4: 'flower.png' is not a name like I01_01_01.png",
        ),
        ("kadid10k", "dmos.csv", "I01_25_01.png", "I01_01_01.png", "lines 2 and 4: I01_01_01.png is listed twice"),
        ("tid2013", "mos_with_names.txt", "5.50000 ", "", "line 1: 'I01_01_1.bmp' is not a score and a name"),
        ("tid2013", "mos_with_names.txt", "5.50000", "five", "line 1: mos is 'five'"),
        ("koniq10k", "koniq10k_distributions_sets.csv", "validation", "spare", "line 3: set is 'spare'"),
        ("koniq10k", "koniq10k_distributions_sets.csv", "31.0", "inf", "line 3: MOS is 'inf'"),
        ("flive", "database/labels=640_padded.csv", "True", "1", "line 3: is_valid is '1'; expected True or False"),
        ("flive", "database/labels_image.csv", "74.4", "", "line 3: mos is ''"),
        ("pipal", "Train_Label/A0001.txt", ",1418.5", "", "line 3: 'A0001_06_00.bmp' is not a name like"),
        ("pipal", "Train_Label/A0001.txt", "1418.5", "-", "line 3: elo is '-'"),
        ("agiqa3k", "data.csv", "1.97", " ", "line 4: mos_quality is ''"),
        ("biq2021", "Test (Images and MOS).csv", "0.4559", "x", "line 2: MOS is 'x'"),
        ("biq2021", "Test (Images and MOS).csv", "ss02 (1491)", "ss03 (3753)", "ss03 (3753).jpg is listed twice"),
    ],
)
def test_mistakes_in_a_table_name_the_row(tmp_path, name, table, old, new, says):
    made(name, tmp_path)
    swap(tmp_path / table, old, new)
    message = complaint(name, tmp_path)
    assert says in message and str(tmp_path / table) in message


def test_tables_without_rows_or_lines(tmp_path):
    made("kadid10k", tmp_path)
    lines(tmp_path / "dmos.csv", "dist_img,ref_img,dmos,var")
    assert "it lists no images" in complaint("kadid10k", tmp_path)
    made("tid2013", tmp_path)
    lines(tmp_path / "mos_std.txt", "0.1")
    assert "mos_std.txt has 1 lines for 8 of mos_with_names.txt" in complaint("tid2013", tmp_path)
    made("pipal", tmp_path)
    shutil.rmtree(tmp_path / "Train_Label")
    (tmp_path / "Train_Label").mkdir()
    assert "it lists no images" in complaint("pipal", tmp_path)


def test_workbooks_with_a_mistake(tmp_path):
    made("spaq", tmp_path)
    path = tmp_path / "Annotations" / "MOS and Image attribute scores.xlsx"
    workbook(path, {"Sheet1": [["Image name", "MOS"], ["00001.jpg", 50.0], [], ["00002.jpg", None], ["00003.png", 2]]})
    assert "MOS and Image attribute scores.xlsx, row 4: MOS is ''" in complaint("spaq", tmp_path)
    workbook(path, {"Sheet1": [["Image name", "MOS"], ["00001.jpg", 50.0], ["00002.jpg", 50]]})
    assert "every MOS is 50" in complaint("spaq", tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    assert "cannot be read as an Excel workbook" in complaint("spaq", tmp_path)
    made("csiq", tmp_path)
    workbook(tmp_path / "csiq.DMOS.xlsx", {"Sheet1": [["image", "dmos"]]})
    assert "there is no sheet 'all_by_image' (sheets found: Sheet1)" in complaint("csiq", tmp_path)
    columns = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    workbook(tmp_path / "csiq.DMOS.xlsx", {"all_by_image": [columns, ["family", 1, "snow", 1, 0.1, 0.2]]})
    assert "row 2: dst_type is 'snow'; expected one of noise, blur" in complaint("csiq", tmp_path)


def test_equal_images_of_different_references_are_refused(tmp_path):
    folder = made("kadid10k", tmp_path) / "images"
    shutil.copy(folder / "I01_01_05.png", folder / "I02_25_01.png")
    message = complaint("kadid10k", tmp_path)
    assert "lines 3 and 8: I01_01_05.png and I02_25_01.png are the same image in different groups" in message
    shutil.copy(folder / "I01_01_05.png", folder / "I01_25_01.png")
    picture(folder / "I02_25_01.png")
    assert len(read_set("kadid10k", tmp_path)) == 8  # within a group it does no harm


def test_equal_images_without_references_share_a_group(tmp_path):
    folder = made("koniq10k", tmp_path) / "1024x768"
    shutil.copy(folder / "826373.jpg", folder / "99.jpg")
    assert read_set("koniq10k", tmp_path).groups == ["10004473376.jpg", "826373.jpg", "826373.jpg"]


def test_letter_case_of_file_names_does_not_count(tmp_path):
    made("csiq", tmp_path)
    for name in ("AWGN", "JPEG", "BLUR"):
        (tmp_path / "dst_imgs" / name).rename(tmp_path / "dst_imgs" / name.lower())
    assert len(read_set("csiq", tmp_path)) == 24
    shelf = Shelf([tmp_path / "absent", tmp_path / "src_imgs"])
    assert shelf.find("FAMILY.png") == tmp_path / "src_imgs" / "family.png"
    for name in ("", ".", "..", "family.png/x", "../csiq.DMOS.xlsx", "sub/family.png"):
        assert shelf.find(name) is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 768), (682, 512)),
        ((768, 1024), (512, 682)),
        ((600, 600), (512, 512)),
        ((512, 9000), (512, 9000)),
        ((8, 9), (8, 9)),
    ],
)
def test_the_shorter_side(size, expected):
    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    scaled = to_shorter_side(image, 512)
    assert scaled.shape == (expected[1], expected[0], 3) and scaled.dtype == np.uint8
    assert scaled is image if size == expected else abs(scaled.mean() - image.mean()) < 0.5


@pytest.mark.slow
def test_a_tensorflow_builder(tmp_path, monkeypatch, capsys):
    tfds = pytest.importorskip("tensorflow_datasets")
    from contrique_jax.data.iqa_tfds import builder_class, main
    from contrique_jax.data.tfds_source import TfdsSource
    from contrique_jax.errors import run_verb

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))

    def prepared(name):
        return ["--manual-dir", str(tmp_path / name), "--data-dir", str(tmp_path / "prepared")]

    images = read_set("pipal", made("pipal", tmp_path / "pipal"), with_references=True)
    main(["PIPAL", *prepared("pipal")])
    assert "iqa_pipal/1.0.0/whole: 8 images" in capsys.readouterr().out
    assert builder_class("pipal") is builder_class("PIPAL")
    builder = tfds.builder("iqa_pipal", data_dir=str(tmp_path / "prepared"))
    assert builder.info.metadata["higher_is_better"] is True and builder.info.metadata["score_range"] is None
    seen = {}
    for example in builder.as_dataset(split="whole").as_numpy_iterator():
        seen[example["name"].decode()] = example
    assert len(seen) == len(images)
    for i, path in enumerate(images.paths):
        example = seen[path.relative_to(tmp_path / "pipal").as_posix()]
        assert example["score"] == np.float32(images.scores[i])
        assert example["group"].decode() == images.groups[i] and example["subset"].decode() == images.subsets[i]
        np.testing.assert_array_equal(example["image"], np.asarray(Image.open(path)))
        np.testing.assert_array_equal(example["reference"], np.asarray(Image.open(images.references[i])))

    made("koniq10k", tmp_path / "koniq10k")
    main(["koniq10k", *prepared("koniq10k")])
    source = TfdsSource("tfds:iqa_koniq10k/test", field="data.authentic", max_pixels=10**6)
    assert len(source) == 1 and source.load(0).shape == (1, 6, 8, 3)
    assert run_verb(main, ["live", *prepared("koniq10k")]) == 2
    assert "manual_dir: " in capsys.readouterr().err and not (tmp_path / "prepared" / "iqa_live" / "1.0.0").exists()
    assert run_verb(main, ["csiq", *prepared("absent")]) == 2
