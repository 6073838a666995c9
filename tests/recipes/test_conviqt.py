"""CONVIQT: numbers of the original program, what its clips are, and how a whole video gets its features."""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from contrique_jax.config import ModelConfig, OptimConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.clips import frames
from contrique_jax.data.sources import open_source
from contrique_jax.errors import BrokenImage, UserError, run_verb
from contrique_jax.features import main as features
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.recipe_extractor import ClipExtractor
from contrique_jax.losses.nt_xent import nt_xent_of_patches
from contrique_jax.networks import gru
from contrique_jax.networks.encoder import init_model
from contrique_jax.networks.model_folder import from_flat, save_model, to_flat
from contrique_jax.networks.skeleton import skeleton
from contrique_jax.probe import NO_REFERENCE, Probe, load_probe
from contrique_jax.recipes.conviqt import made, motion, recipe, temporal
from contrique_jax.recipes.conviqt.classes import CLEAN, NUM_CLASSES
from contrique_jax.recipes.conviqt.config import ConviqtConfig, ConviqtData, ConviqtModel
from contrique_jax.score import main as score
from contrique_jax.training.load import load_any
from contrique_jax.training.optim import learning_rate
from tests.recipes.tiny import tiny_conviqt
from tests.reference_weights import rebuilt, reference_variables
from tests.video_files import pictures, write_video

FULL = gru.Widths(2048, 1024, 128, False)
SMALL = gru.Widths(12, 8, 6, False)


# the original's numbers


@pytest.fixture(scope="module")
def stored(shared):
    with np.load(shared / "systems" / "reference" / "conviqt.npz") as data:
        return dict(data)


@pytest.fixture(scope="module")
def weights(shared):
    shapes = json.loads((shared / "systems" / "reference" / "conviqt_shapes.json").read_text())
    return from_flat(
        {name: rebuilt(name, tuple(shape)) for name, shape in shapes.items() if not name.endswith("tracked")}
    )


def sequences(seed, count):
    r = np.random.default_rng(seed)
    x = np.abs(np.abs(r.standard_normal((count, 1, 2048))) + 0.3 * r.standard_normal((count, 16, 2048)))
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def close(ours, theirs, tolerance):
    apart = np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs)
    assert apart <= tolerance, apart


def test_states_and_embeddings_are_the_originals(weights, stored):
    x = sequences(1, 3)
    np.testing.assert_array_equal(x[:, ::5, :8], stored["eval/check_x_i"])
    states = gru.states(FULL, weights, jnp.asarray(x))
    close(states[0], stored["eval/states0"], 1e-4)
    close(states[:, -1], stored["eval/last"], 1e-4)
    for seed, name in ((1, "i"), (2, "j")):
        close(gru.features(FULL, weights, jnp.asarray(sequences(seed, 3))), stored[f"eval/h_{name}"], 1e-4)


def test_a_training_step_is_the_originals(weights, stored):
    x, classes = jnp.asarray(np.stack([sequences(3, 6), sequences(4, 6)], axis=1)), jnp.asarray([0, 0, 1, 2, 3, 4])

    def loss(params):
        z, stats = gru.project(FULL, weights | {"params": params}, x, None)
        found = nt_xent_of_patches(
            z.swapaxes(0, 1)[:, :, None], classes, num_classes=5, shared_classes=5, temperature=0.1, block_size=512
        )
        return found, (z, stats)

    (found, (z, stats)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(weights["params"])
    np.testing.assert_allclose(found, stored["train/loss"], rtol=1e-5)
    for place, name in enumerate("ij"):
        close(z[:, place], stored[f"train/z_{name}"], 1e-4)
    flat = to_flat({"params": gradient, "batch_stats": stats})
    for name, norm in zip(stored["train/grad_names"], stored["train/grad_norms"], strict=True):
        np.testing.assert_allclose(np.linalg.norm(flat[name]), norm, rtol=1e-3)
        part = flat[name].reshape(len(flat[name]), -1)[:16, :64] if flat[name].ndim > 1 else flat[name][:64]
        close(part, stored[f"train/grad/{name}"], 1e-3)


def test_running_statistics_move_once_a_view():
    """The stored ones are those before the step, so that the formula stands here."""
    variables = skeleton(gru.ClipNetwork, SMALL).init(0)
    x = np.random.default_rng(0).standard_normal((5, 2, 4, 12)).astype(np.float32)
    _, stats = gru.project(SMALL, variables, jnp.asarray(x), None)
    mean, variance = np.zeros(8), np.ones(8)
    for view in (0, 1):
        h = np.asarray(gru.features(SMALL, variables, jnp.asarray(x[:, view])))
        y = h @ np.asarray(variables["params"]["projector"]["0"]["weight"])
        mean, variance = 0.9 * mean + 0.1 * y.mean(0), 0.9 * variance + 0.1 * y.var(0, ddof=1)
    np.testing.assert_allclose(stats["projector"]["1"]["running_mean"], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["projector"]["1"]["running_var"], variance, rtol=1e-4)


@pytest.mark.parametrize("case", range(2))
def test_the_loss_is_the_originals(stored, case):
    z = [stored[f"loss{case}/z_{name}"] for name in "ij"]
    synthetic = stored[f"loss{case}/synthetic_class"]
    own = 120 + np.arange(len(z[0]) - len(synthetic))
    classes = jnp.asarray(np.concatenate([synthetic, own]).astype(np.int32))
    for t in (0.1, 0.5):
        loss = jax.value_and_grad(
            lambda z, t=t: nt_xent_of_patches(
                z[:, :, None], classes, num_classes=240, shared_classes=120, temperature=t, block_size=512
            )
        )
        found, gradient = loss(jnp.asarray(np.stack(z)))
        np.testing.assert_allclose(found, stored[f"loss{case}/t{t}/loss"], rtol=1e-5)
        for place, name in enumerate("ij"):
            close(gradient[place], stored[f"loss{case}/t{t}/grad_{name}"], 1e-3)


def test_rates_are_the_originals_but_for_one_step_of_the_warm_up(stored):
    """Ours begins at peak / w, the original's at peak / (w + 1), and so on up to the peak; then both are one cosine."""
    optim = OptimConfig(learning_rate=1.2)
    ours = np.array([learning_rate(optim, 40, step) for step in range(40)])
    np.testing.assert_allclose(ours[4:], stored["lr/used"][4:], rtol=1e-5)
    np.testing.assert_allclose(ours[:4] * 4 / 5, stored["lr/used"][:4], rtol=1e-5)


def test_a_video_of_35_frames_is_the_originals_two_blocks(shared, weights, stored):
    """And a third, of what it drops; with the frozen CONTRIQUE of the reference's weights."""
    r = np.random.default_rng(35)
    base = stored["video/base"].astype(np.int64)
    moved = [np.roll(base, t, axis=1) + r.integers(-8, 9, base.shape) for t in range(35)]
    clip = np.clip(moved, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(clip.reshape(35, -1).sum(1), stored["video/frame_sums"])
    config = ConviqtConfig()
    config.model = ConviqtModel("", "", "resnet50", 64, "unit")
    trunk = {part: {"encoder": tree["encoder"]} for part, tree in reference_variables(shared).items()}
    extractor = ClipExtractor(config, {part: trunk[part] | weights[part] for part in trunk})
    rows = np.split(extractor.frames.of_frames(list(clip[:2])), 2, axis=1)
    for name, found in zip(("full", "half"), rows, strict=True):
        close(found, stored[f"video/spatial_{name}"], 1e-3)  # the original rounds pixels to float16
    for block, wanted in enumerate(stored["video/clip_features"]):
        close(extractor.of_block(list(clip[16 * block : 16 * block + 16])), wanted, 1e-4)
    assert extractor.of_block(list(clip[32:])).shape == (2048,)


# clips


def test_order_matters_and_lengths_count():
    variables = skeleton(gru.ClipNetwork, SMALL).init(1)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 5, 12)), jnp.float32)
    forward, backward = gru.features(SMALL, variables, x), gru.features(SMALL, variables, x[:, ::-1])
    assert np.abs(forward - backward).max() > 1e-2
    padded = jnp.concatenate([x, jnp.full((2, 3, 12), 9.0)], axis=1)
    np.testing.assert_allclose(gru.features(SMALL, variables, padded, jnp.asarray([5, 5])), forward, atol=1e-6)


def test_classes_are_drawn_by_the_shares():
    data = ConviqtData(clean_share=0.1, temporal_share=0.5, types=(3, 10), temporal=("frozen", "compression"))
    found = np.array([made.draw_class(data, np.random.default_rng([0, i])) for i in range(4000)])
    shares = {CLEAN: 0.1} | {5 * kind + level: 0.45 / 10 for kind in (26, 28) for level in range(5)}
    shares |= {5 * (kind - 1) + level: 0.45 / 10 for kind in (3, 10) for level in range(5)}
    assert set(found) == set(shares) and max(shares) < NUM_CLASSES
    chi_square = sum((np.sum(found == name) - 4000 * share) ** 2 / (4000 * share) for name, share in shares.items())
    assert chi_square < 45.3  # 20 degrees of freedom: one time in a thousand


def test_a_camera_stays_over_its_photograph():
    image = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    for seed in range(20):
        path = motion.camera(np.random.default_rng(seed), 40)
        assert path.min() >= 0 and path.max() <= 1 and len(np.unique(path[:, 0])) == 40
    clip = motion.filmed(image, path, 64, 96)
    assert clip.shape == (40, 64, 96, 3)
    still = motion.filmed(np.full((70, 90, 3), 77, np.uint8), path[:3], 64, 64)
    assert np.abs(still.astype(int) - 77).max() <= 1


def test_distortions_along_time():
    clip = pictures(30)[:, 24:, 32:]  # the green, whose value tells which frame it was
    which = lambda found: found[:, 5, 5, 1] // 8  # noqa: E731
    generator = np.random.default_rng(0)
    for level in range(1, 6):
        there = temporal.source_frames("dropped", level, 8)
        dropped = which(temporal.distorted(clip[:there], "dropped", level, 8, generator))
        assert dropped[0] == 0 and (np.diff(dropped.astype(int)) > 0).all() and dropped[-1] > 7 - (level == 1)
        frozen = which(temporal.distorted(clip, "frozen", level, 30, generator)).astype(int)
        assert (np.diff(frozen) == 0).any() and (frozen <= np.arange(30)).all() and (np.diff(frozen) >= 0).all()
    flickers = [
        np.abs(
            temporal.distorted(np.full((30, 4, 4, 3), 100, np.uint8), "flicker", level, 30, generator) - 100.0
        ).mean()
        for level in (1, 3, 5)
    ]
    assert flickers == sorted(flickers)


def test_compression_costs_more_at_each_level():
    pytest.importorskip("av")
    image = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(image).resize((320, 240)))
    clip = motion.filmed(image, motion.camera(np.random.default_rng(1), 6), 64, 96)
    errors = [
        np.mean((temporal.distorted(clip, "compression", level, 6, np.random.default_rng(0)) - clip.astype(float)) ** 2)
        for level in range(1, 6)
    ]
    assert errors == sorted(errors) and errors[0] > 0
    odd = clip[:, :63, :95]
    found = temporal.compressed(odd, 20)
    assert found.shape == odd.shape and np.mean((found - odd.astype(float)) ** 2) < 2 * errors[2]


def test_one_draw_distorts_all_frames():
    """A still clip stays still under a patch, and under noise it does not."""
    data = ConviqtData(types=(20, 11))
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8), 3, axis=0)
    for kind, moves in ((20, False), (11, True)):
        found = made.under_bank(data, still, 5 * (kind - 1) + 4, np.random.default_rng(1))
        assert (found != still).any() and bool((found[0] != found[1]).any()) == moves


# videos as sources and as what is scored


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Nine frames, five, three (fewer than a block), none, and an image."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("videos")
    clip = np.random.default_rng(2).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    for name, count in (("a", 9), ("b", 5), ("short", 3)):
        write_video(folder / f"{name}.mkv", clip[:count])
    (folder / "broken.mkv").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(200))
    Image.fromarray(clip[0]).save(folder / "one.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = tiny_conviqt()
    folder = tmp_path_factory.mktemp("model")
    found = recipe.finished(config, recipe.init(config, 0), recipe.constants(config))
    save_model(folder, *found, provenance={}, recipe=recipe.name)
    return folder


def test_videos_are_sources(videos, tmp_path, monkeypatch):
    """Authentic ones as they are; of pristine ones the beginning, distorted. What is too short or broken is named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config, broken = tiny_conviqt(), BrokenLog(quiet=True)
    sources = {role: open_source(f"clips:{videos}", role=role, field=role) for role in recipe.roles}
    assert len(sources["authentic"]) == 5  # with the folder, whose image has no number
    found = recipe.prepared(config, sources, broken)
    assert broken.count == 3 and len(found["pristine"]) == 5
    names = [found["authentic"].item_name(i) for i in range(5)]
    at = names.index("a.mkv #0")
    assert found["authentic"].vectors(at).shape == (9, 2, 120)
    assert found["pristine"].vectors(at).shape[0] == config.data.made_frames
    assert (found["pristine"].classes[at] < NUM_CLASSES) and found["authentic"].classes is None
    again = recipe.prepared(config, sources, BrokenLog(quiet=True))
    np.testing.assert_array_equal(again["authentic"].vectors(at), found["authentic"].vectors(at))
    config.model.block_frames = 50
    with pytest.raises(
        UserError, match=r"in a row cannot be read, the last is .*fewer than the 50 of model.block_frames"
    ):
        recipe.prepared(config, sources, BrokenLog(quiet=True))


def test_a_whole_video_is_scored_its_tail_included(videos, model):
    extractor = open_extractor(str(model))
    names = ["a.mkv", "one.png", "broken.mkv", "short.mkv"]
    whole, image, broken, short = extractor.stream([videos / name for name in names])
    assert isinstance(broken.broken, BrokenImage) and str(videos / "broken.mkv") in str(broken.broken)
    clip = [frame.image for frame in frames(videos / "a.mkv")]
    blocks = [extractor.of_block(clip[i : i + 4]) for i in (0, 4, 8)]
    np.testing.assert_allclose(whole.features, np.average(blocks, axis=0, weights=[4, 4, 1]), atol=1e-6)
    assert not np.allclose(blocks[0], extractor.of_block(clip[3::-1]), atol=1e-4)
    np.testing.assert_allclose(
        image.features, extractor.features([np.asarray(Image.open(videos / "one.png"))])[0], atol=1e-6
    )
    np.testing.assert_allclose(
        blocks[2], extractor.features([clip[8]])[0], atol=1e-5
    )  # an image is a clip of one frame
    assert short.features.shape == image.features.shape == (16,)
    wide = dataclasses.replace(extractor.config.model, block_frames=9)
    longer = ClipExtractor(dataclasses.replace(extractor.config, model=wide), extractor.variables)
    (one,) = longer.stream([videos / "a.mkv"])
    np.testing.assert_allclose(one.features, longer.of_block(clip), atol=1e-6)
    assert longer.model_hash != extractor.model_hash


def test_the_commands_take_videos(videos, model, tmp_path, capfd):
    """A csv of videos and an image: features and scores, in order; what is broken is named and the rest goes on."""
    (videos / "list.csv").write_text("path\na.mkv\nbroken.mkv\none.png\n")
    arguments = ["--model", str(model), "--images", str(videos / "list.csv"), "--out", str(tmp_path / "f.npz")]
    assert run_verb(features, arguments) == 1  # one that is asked for by name cannot be read
    with np.load(tmp_path / "f.npz") as found:
        assert [name.rpartition("/")[2] for name in found["path"]] == ["a.mkv", "one.png"]
        vectors, name = found["features"], str(found["model_hash"])
    Probe(np.arange(16.0), 1.0, 0.1, NO_REFERENCE, name, "MINE", 1.0, 5.0, True, 0.25).save(tmp_path / "p.npz")
    arguments = ["--model", str(model), "--probe", str(tmp_path / "p.npz"), "--out", str(tmp_path / "s.csv")]
    assert run_verb(score, [str(videos), *arguments]) == 0
    rows = [line.split(",")[:2] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
    assert [row[0].rpartition("/")[2] for row in rows] == ["a.mkv", "b.mkv", "broken.mkv", "one.png", "short.mkv"]
    np.testing.assert_allclose([float(rows[i][1]) for i in (0, 3)], vectors @ np.arange(16.0) + 1, rtol=1e-4)
    assert rows[2][1] == "" and "broken.mkv: not a video" in capfd.readouterr().err


def test_a_plain_network_gives_a_video_the_mean_of_its_frames(videos):
    extractor = Extractor(tiny_conviqt().model.of_trunk, recipe.constants(tiny_conviqt()))
    (found,) = extractor.stream([videos / "a.mkv"])  # 9 frames at 25 a second: the first
    first = next(frames(videos / "a.mkv")).image
    np.testing.assert_allclose(found.features, extractor.features([first])[0], atol=1e-6)
    extractor.seconds_between = 0.0
    (found,) = extractor.stream([videos / "b.mkv"])
    clip = [frame.image for frame in frames(videos / "b.mkv")]
    np.testing.assert_allclose(found.features, extractor.features(clip).mean(0), rtol=1e-4, atol=1e-6)


# the published file


def test_the_original_file_becomes_a_model(torch, model, tmp_path, capfd):
    """With the trunk that it stands on, and its ridge."""
    from contrique_jax.convert import from_torch
    from contrique_jax.convert.sklearn_probe import probe_from_sklearn
    from tests.convert.subverbs import run

    trunk = ModelConfig("resnet10", base_width=4, projection_dim=8, compute_dtype="float32")
    save_model(tmp_path / "trunk", trunk, init_model(trunk, 0), provenance={})
    widths = gru.Widths(32, 8, 6, False)
    variables = skeleton(gru.ClipNetwork, widths).init(3)
    state = {name: torch.from_numpy(np.array(array)) for name, array in to_flat(variables).items()}
    state |= {f"projector.{i}.num_batches_tracked": torch.zeros((), dtype=torch.int64) for i in (1, 4)}
    torch.save(state, tmp_path / "in.tar")
    run(from_torch, tmp_path / "in.tar", tmp_path / "out", code=2)
    assert "stand on a frozen CONTRIQUE" in capfd.readouterr().err
    run(from_torch, tmp_path / "in.tar", tmp_path / "out", "--trunk", tmp_path / "trunk")
    config, found = load_any(str(tmp_path / "out"))
    assert (config.recipe, config.model.hidden_width, config.model.projection_dim) == ("conviqt", 8, 6)
    for part in ("params", "batch_stats"):
        own = {name: tree for name, tree in found[part].items() if name != "encoder"}
        jax.tree.map(np.testing.assert_array_equal, own, variables[part])
    x = np.random.default_rng(0).standard_normal((2, 5, 32)).astype(np.float32)
    theirs = torch.nn.GRU(32, 8, batch_first=True)
    theirs.load_state_dict({name.removeprefix("gru."): part for name, part in state.items() if name.startswith("gru.")})
    np.testing.assert_allclose(
        gru.states(widths, variables, jnp.asarray(x)), theirs(torch.from_numpy(x))[0].detach(), atol=1e-6
    )
    run(from_torch, tmp_path / "in.tar", tmp_path / "out", "--trunk", tmp_path / "trunk", code=2)  # left alone
    ridge = {"coefficients": [0.5] * 16, "intercept": 1.0, "alpha": 0.1}
    (tmp_path / "ridge.json").write_text(json.dumps(ridge))
    told = ["--low", 0, "--high", 100, "--higher-is-better", "yes", "--model", tmp_path / "out"]
    run(probe_from_sklearn, tmp_path / "ridge.json", tmp_path / "p.npz", *told)
    assert load_probe(str(tmp_path / "p.npz")).model_hash == open_extractor(str(tmp_path / "out")).model_hash
    for broken, sentence in (
        ({"gru.bias_hh_l0": torch.zeros(23)}, r"gru.bias_hh_l0 is \[23\], where a CONVIQT has \[24\]"),
        ({"gru.weight_ih_l0": torch.zeros(24, 31)}, "gives 32 numbers a frame"),
        ({"gru.weight_ih_l0": torch.full((24, 32), np.nan)}, "NaN"),
        ({"head.weight": torch.zeros(2)}, "head.weight is"),
    ):
        torch.save(state | broken, tmp_path / "broken.tar")
        run(from_torch, tmp_path / "broken.tar", tmp_path / "other", "--trunk", tmp_path / "trunk", code=2)
        assert re.search(sentence, capfd.readouterr().err) and not (tmp_path / "other").exists()
