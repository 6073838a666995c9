"""What systems trained on opinions share: rows, the line of the scores, test crops; and such a model as a meter."""

from __future__ import annotations

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image
from scipy.stats import spearmanr

import contrique_jax
from contrique_jax import evaluate, score
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.sources import CachedSource, open_source
from contrique_jax.errors import UserError, run_verb
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.inference.recipe_extractor import taken_of
from contrique_jax.networks.model_folder import save_model
from contrique_jax.recipes.opinions import judge, rows
from contrique_jax.recipes.opinions.config import Judge, OpinionLoss
from contrique_jax.recipes.opinions.scale import fitted
from contrique_jax.recipes.zeng_kwong import recipe
from contrique_jax.recipes.zeng_kwong.config import TwoModeConfig, TwoModeModel
from tests.recipes.rated_folder import LEVELS, write_pairs

SIDE = 32


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def opened(path):
    return open_source(str(path), role="rated", field="config.data.rated")


def config_for(**data):
    config = TwoModeConfig()
    config.data.batch_size, config.data.view_size = 8, SIDE
    for name, value in data.items():
        setattr(config.data, name, value)
    return config


def all_rows_of(config, source, broken, steps=3):
    sources = recipe.prepared(config, {"rated": source}, broken)
    for step in range(steps):
        (draws,) = recipe.draw(config, sources, step, range(8))
        yield from (recipe.load(config, sources, 0, draws, row, broken) for row in range(8))


def test_image_and_reference_have_one_window_and_one_flip(pairs):
    """Of the level without noise both are nearly equal."""
    source = CachedSource(opened(pairs), 1 << 26)
    found = list(all_rows_of(config_for(), source, BrokenLog()))
    np.testing.assert_allclose(sorted({float(row.target) for row in found}), [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    for row in found:
        apart = np.abs(row.image.astype(int) - row.reference).mean()
        assert row.paired == 1 and (apart < 2 if row.target == 1 else apart > 4)
        np.testing.assert_allclose(row.scale, [70, -60, 10, 70])  # dmos: lower is better


def test_a_pair_of_two_sizes_is_named_and_passed_by(pairs, tmp_path, capsys):
    csv = write_pairs(tmp_path / "odd", references=4)
    Image.new("RGB", (50, 60)).save(csv.parent / "1_2.png")
    broken = BrokenLog()
    assert len(list(all_rows_of(config_for(), opened(csv), broken))) == 24
    assert broken.count == 1 and "it is 50x60 and its reference 72x80" in capsys.readouterr().err


def test_rated_images_that_cannot_be_used_are_one_sentence(pairs, tmp_path):
    same, alone = tmp_path / "same.csv", tmp_path / "alone.csv"
    first, *lines = pairs.read_text().splitlines()
    for name in {cell for line in lines for cell in line.split(",")[::2]}:
        (tmp_path / name).symlink_to(pairs.parent / name)
    same.write_text("\n".join([first, *(f"{a},5,{c}" for a, _, c in (line.split(",") for line in lines))]))
    alone.write_text("\n".join(["path,mos", *(line.rsplit(",", 1)[0] for line in lines)]))
    with pytest.raises(UserError, match=r"same\.csv: .*dmos"):
        opened(same)
    config = config_for()
    config.loss.reference_share = 1.0
    with pytest.raises(UserError, match=r"24 of its 24 images have no reference, the first is 0_0.png; give a column"):
        recipe.prepared(config, {"rated": opened(alone)}, BrokenLog())
    with pytest.raises(UserError, match=r"config\.data\.rated=scenes:2: its images have no opinions"):
        recipe.prepared(config, {"rated": opened("scenes:2")}, BrokenLog())
    both = recipe.prepared(config_for(), {"rated": opened(f"{pairs},{alone}")}, BrokenLog())["rated"]
    assert recipe.describe(None, {"rated": both}).startswith("48 rated images, 24 with references")
    assert tuple(both.scale) == (0, 1, 0, 1)  # two units: no line of the model's own
    np.testing.assert_allclose(both.labels[:24], 1 - both.labels[24:], atol=1e-6)  # dmos, and the same as mos


def test_the_line_is_of_the_training_side_and_upwards():
    scores = np.array([20.0, 35, 80])
    for higher, best in ((True, 80), (False, 20)):
        for scaling in ("min-max", "z-score"):
            line = fitted(scores, higher, scaling, "MINE")
            targets = line.targets(scores)
            assert scores[np.argmax(targets)] == best and (line.low, line.high) == (20, 80)
            np.testing.assert_allclose(line.zero + line.unit * targets, scores)
    np.testing.assert_allclose([targets.mean(), targets.std()], [0, 1], atol=1e-12)
    with pytest.raises(UserError, match="MINE: every score is 3, so nothing can be learned"):
        fitted(np.full(4, 3.0), True, "min-max", "MINE")


def test_a_loss_of_nothing_is_refused():
    with pytest.raises(UserError, match="every weight is 0"):
        OpinionLoss(mae=0.0).validate()


def test_a_small_side_is_continued_by_its_mirror_image():
    assert rows.mirrored(np.arange(9), 4, np).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert rows.mirrored(jnp.arange(3), jnp.int32(1)).tolist() == [0, 0, 0]


def test_where_a_model_looks_is_part_of_its_name():
    """Or an evaluation would take the kept scores of other crops."""
    config = TwoModeConfig()
    assert taken_of(config) == ""
    config.model.crops = "ten"
    assert taken_of(config) == " crops ten"


@pytest.mark.parametrize("crops", [Judge("grid", 9), Judge("random", 5, crop_seed=2), Judge("ten")])
def test_test_crops_lie_where_they_should(crops):
    """Of an image whose red and green are column and row, beside a canvas that holds more."""
    crops.crop_size, size = SIDE, (50, 60)
    image = np.stack([*np.meshgrid(np.arange(60), np.arange(50)), np.zeros(size)], -1).astype(np.float32)
    seen = []

    def network(x, reference):
        seen.append(np.asarray(x[0]))
        return x[:, 0, 0, 0]

    canvas = np.full((1, 64, 96, 3), 99, np.float32)
    canvas[:, :50, :60] = image
    with jax.disable_jit():
        judge.mean_over_crops(crops, network, jnp.asarray(canvas), jnp.array([[50, 60]]))
    corners = {(int(x[0, :, 0].min()), int(x[:, 0, 1].min())) for x in seen}
    assert all(x[..., 0].max() < 60 and x[..., 1].max() < 50 for x in seen)
    if crops.crops == "random":
        assert len(corners) == 5
        return
    edges = {(0, 0), (28, 0), (0, 18), (28, 18), (14, 9)}
    assert edges <= corners and len(corners) == (9 if crops.crops == "grid" else 5)
    mirrored = [x[0, 0, 0] > x[0, -1, 0] for x in seen]
    assert sum(mirrored) == (0 if crops.crops == "grid" else 5)


@pytest.fixture(scope="module")
def meters(tmp_path_factory):
    """Folders of a model of each mode, of the same random weights."""
    folder, found = tmp_path_factory.mktemp("meters"), {}
    for mode in recipe.REFERENCE:
        model = TwoModeModel("random", "", "resnet10", 4, "unit", width=8, depth=1, heads=2, hidden=16, mode=mode)
        model.crop_count, model.crop_size = 1, SIDE
        config = TwoModeConfig(model=model)
        variables = recipe.init(config, 0)
        variables["scale"] = {"zero": 70, "unit": -60, "low": 10, "high": 70}
        architecture, kept = recipe.finished(config, variables, recipe.constants(config))
        save_model(folder / mode, architecture, kept, provenance={}, recipe="zeng_kwong")
        found[mode] = folder / mode
    return found


def test_a_model_judges_alone_and_beside_a_reference(meters, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")
    files = [str(pairs.parent / f"0_{level}.png") for level in range(LEVELS)]
    clean = str(pairs.parent / "clean0.png")
    both, compares, alone = (contrique_jax.load(folder) for folder in meters.values())
    beside = both.score(files, reference=clean)
    np.testing.assert_allclose(both.score(files), alone.score(files), rtol=1e-6)
    assert np.all(np.abs(beside - both.score(files)) > 1e-4)
    np.testing.assert_array_equal(
        beside, compares.score([np.asarray(Image.open(f)) for f in files], np.asarray(Image.open(clean)))
    )
    both._extractor.max_megapixels = 0.001  # files are scaled down to it, and so is the reference that is no file
    small = both.score(files, reference=clean)
    np.testing.assert_array_equal(both.score(files, reference=np.asarray(Image.open(clean))), small)
    assert not np.array_equal(small, beside)
    out = tmp_path / "s.csv"
    assert run_verb(score.main, ["--model", str(meters["both"]), "--reference", clean, *files, "--out", str(out)]) == 0
    written = [float(line.split(",")[1]) for line in out.read_text().splitlines()[1:]]
    np.testing.assert_allclose(written, beside, rtol=1e-5)
    assert "lower is better" in json.loads((tmp_path / "s.csv.json").read_text())["direction"]


def test_an_evaluation_judges_each_image_beside_its_own_reference(meters, pairs, tmp_path, capsys):
    """It says that no ridge was fitted; its probe is the line from the model's own scores, lower ones better, to opinions."""
    out, page, probe = tmp_path / "e.json", tmp_path / "e.html", tmp_path / "e.npz"
    flags = ["--scores", str(pairs), "--no-control", "--splits", "2", "--features-cache", str(tmp_path / "kept")]
    flags += [
        "--full-reference",
        "--out",
        str(out),
        "--report",
        str(page),
        "--probe",
        str(probe),
        "--cross",
        str(pairs),
    ]
    for _ in range(2):  # the second time from what is kept
        assert run_verb(evaluate.main, ["--model", str(meters["both"]), *flags]) == 0
    found = json.loads(out.read_text())
    assert found["mode"] == "full-reference" and np.isfinite(found["srocc"])
    said = capsys.readouterr().out
    assert "its own scores, no ridge" in said and "alpha" not in said and "SROCC by labelled images" not in said
    told = page.read_text()
    assert "its own scores of each image beside its reference" in told
    assert "principal components" not in told and "Controls" not in told
    images = read_scores(pairs, reference_column="reference")
    own, ours = contrique_jax.load(meters["both"]), contrique_jax.load(meters["both"], probe=probe)
    clean = [np.asarray(Image.open(path)) for path in images.references]
    judged, brought = (
        np.array([np.ravel(m.score(p, reference=r))[0] for p, r in zip(images.paths, clean, strict=True)])
        for m in (own, ours)
    )
    slope = images.scores.std() / judged.std()  # both are lower for better images
    np.testing.assert_allclose(brought, images.scores.mean() + slope * (judged - judged.mean()), rtol=1e-3)
    assert found["cross"][0]["srocc"] == pytest.approx(float(spearmanr(judged, images.scores).statistic))


def test_a_broken_reference_is_told_from_its_image(meters, pairs, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no image")
    image = pairs.parent / "0_1.png"
    extractor = open_extractor(str(meters["full-reference"])).with_references({image: tmp_path / "no.png"})
    (found,) = extractor.stream([image])
    assert str(found.broken).startswith(f"{image}: its reference {tmp_path}/no.png: not an image")


def test_a_reference_too_few_or_too_many_is_one_sentence(meters, pairs, tmp_path, capsys):
    image, clean = str(pairs.parent / "0_1.png"), str(pairs.parent / "clean0.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "small.png")
    compares, alone = (["--model", str(meters[mode])] for mode in ("full-reference", "no-reference"))
    rated = ["--scores", str(pairs), "--no-control", "--splits", "2"]
    cases = [
        (score, [*compares, image], "it judges an image beside its reference; give that, with"),
        (score, [*alone, image, "--reference", clean], "this model judges an image alone; leave --reference out"),
        (score, [*compares, image, "--reference", str(tmp_path / "gone.png")], "gone.png"),
        (score, [*compares, image, "--reference", str(tmp_path / "small.png")], "it is 72x80 and its reference 40x40"),
        (evaluate, [*compares, *rated], "beside its reference; add --full-reference"),
        (evaluate, [*alone, *rated, "--full-reference"], "judges an image alone; leave that"),
    ]
    cases += [
        (score, [*compares, "--reference", clean, "gs://bucket/x.png"], "files of this machine are read here"),
        (evaluate, [*compares, "--scores", "gs://bucket/x.csv"], "opinions are read from files of this machine"),
    ]
    for verb, line, sentence in cases:
        assert run_verb(verb.main, line) == 2, line
        assert sentence in capsys.readouterr().err


def test_shares_of_both_heads():
    """Of a pair (1 - share) and share; an image alone is the no-reference head's; share 0 leaves the other head as it is."""
    config = config_for()
    batch = SimpleNamespace(target=jnp.array([0.0, 1.0]), paired=jnp.array([1.0, 0.0]), scale=jnp.ones((2, 4)))
    mesh = jax.make_mesh((1,), ("data",))

    def loss(outputs, share):
        config.loss.reference_share = share
        judged = recipe.Judged(outputs[0], outputs[0][:, None], outputs[1], outputs[1][:, None])
        return recipe.objective(config, {}, judged, batch, "data")[0]

    whole = jax.jit(jax.shard_map(loss, mesh=mesh, in_specs=(P(), P()), out_specs=P()))
    outputs = jnp.array([[0.2, 0.5], [0.7, 0.4]])
    for share, expected in ((0.5, 0.5 * 0.2 + 0.5 + 0.5 * 0.7), (0.0, 0.2 + 0.5), (1.0, 0.5 + 0.7)):
        np.testing.assert_allclose(whole(outputs, jnp.float32(share)), expected / 2, rtol=1e-6)
