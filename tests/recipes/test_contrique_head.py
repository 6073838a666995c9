"""The head on frozen statistics: what is kept, what a broken photograph and another trunk do, which classes views have."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

import contrique_jax
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.sources import open_source
from contrique_jax.distort.bank import NUM_CLASSES
from contrique_jax.errors import UserError
from contrique_jax.io.outputs import user_cache
from contrique_jax.networks.model_folder import save_model
from contrique_jax.recipes.contrique_head import recipe, statistics
from contrique_jax.recipes.kept_vectors import KeptVectors
from tests.recipes.tiny import tiny_head


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Ten small photographs, one of them no image."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for i in range(10):
        pixels = generator.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "3.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def config(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = tiny_head()
    config.data.pristine = config.data.authentic = str(photographs)
    return config


def prepared(config, broken=None):
    sources = {role: open_source(getattr(config.data, role), role=role, field=role) for role in recipe.roles}
    return recipe.prepared(config, sources, broken or BrokenLog(quiet=True))


def test_statistics_are_computed_once_and_only_what_is_new(config, monkeypatch):
    broken = BrokenLog(quiet=True)
    first = prepared(config, broken)
    assert broken.count == 1 and len(first["pristine"]) == 20
    views, computed, real = first["pristine"].vectors.reshape(10, 2, 2, -1), [], statistics._Describer._encoded
    np.testing.assert_array_equal(views[3], views[4])  # in place of the broken one, the next

    def counted(self, crops):
        computed.append(len(crops))
        return real(self, crops)

    monkeypatch.setattr(statistics._Describer, "_encoded", counted)
    again = prepared(config)
    assert not computed
    config.data.views = 2 * statistics.TOGETHER
    more = prepared(config)
    # of 4 and of 3, whose place it takes, at most both
    assert set(computed) == {statistics.TOGETHER} and 2 * 9 <= len(computed) <= 2 * 10
    for role in recipe.roles:
        np.testing.assert_array_equal(first[role].vectors, again[role].vectors)
        np.testing.assert_array_equal(
            more[role].vectors.reshape(10, 8, 2, -1)[:, :2], first[role].vectors.reshape(10, 2, 2, -1)
        )
    np.testing.assert_array_equal(first["pristine"].classes, again["pristine"].classes)
    files = list(user_cache("views").rglob("*.npy"))
    files[0].write_bytes(files[0].read_bytes()[:200])  # cut off: computed again
    described, put = [], KeptVectors.put
    monkeypatch.setattr(KeptVectors, "put", lambda self, name, found: described.append(name) or put(self, name, found))
    prepared(config)
    assert set(described) == {files[0].stem}


def test_views_of_an_authentic_photograph_are_of_one_class(config):
    sources = prepared(config)
    _, authentic = recipe.draw(config, sources, 0, range(config.data.batch_size))
    photographs = authentic.record // config.data.views
    assert len(np.unique(photographs)) < len(photographs)  # or this shows nothing
    same = photographs[:, None] == photographs[None]
    np.testing.assert_array_equal(authentic.class_id[:, None] == authentic.class_id[None], same)
    share = config.data.batch_size // 2
    assert authentic.class_id.min() >= NUM_CLASSES and authentic.class_id.max() < NUM_CLASSES + share


def test_statistics_beyond_the_memory_are_one_sentence_before_any_is_computed(config, monkeypatch):
    monkeypatch.setattr(statistics, "free_memory", lambda: 1000)
    monkeypatch.setattr(statistics, "load_image", None)
    with pytest.raises(
        UserError, match=r"config.data.pristine: the statistics of 2 views of 10 photographs take 0.0 GB"
    ):
        prepared(config)


def test_a_trunk_that_does_not_fit_is_one_sentence(config, tmp_path):
    config.model.trunk = "lite0"
    with pytest.raises(UserError, match=r"trunk=lite0: its encoder is 'efficientnet_lite0' .*--config.model.encoder="):
        recipe.constants(config)
    config.model.trunk = str(tmp_path / "gone")
    with pytest.raises(UserError, match=r"trunk=.*gone: there is no such model"):
        recipe.constants(config)


@pytest.mark.slow
def test_a_finished_model_is_whole_and_knows_its_trunk(config, tmp_path):
    """Trunk and head in one folder, with the trunk's hash; a folder of other weights is refused."""
    image, widths = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8), {}
    for choice in ("head", "stages", "stages+head"):
        config.model.features = choice
        model, variables = recipe.finished(config, recipe.init(config, 0), recipe.constants(config))
        save_model(tmp_path / choice, model, variables, provenance={}, recipe=recipe.name)
        widths[choice] = contrique_jax.load(tmp_path / choice).features([image])
    whole = np.split(widths["stages+head"], 2, axis=1)
    parts = zip(np.split(widths["stages"], 2, axis=1), np.split(widths["head"], 2, axis=1), strict=True)
    np.testing.assert_allclose(whole, [np.hstack(pair) for pair in parts], rtol=1e-4, atol=1e-5)
    assert widths["head"].shape[1] == 2 * config.model.head_width
    description = json.loads((tmp_path / "head" / "model.json").read_text())
    assert description["architecture"]["trunk_hash"] == model.trunk_hash != ""
    moved = dataclasses.replace(model, trunk="where/the/trunk/was")  # its weights are in the folder
    save_model(tmp_path / "moved", moved, variables, provenance={}, recipe=recipe.name)
    assert contrique_jax.load(tmp_path / "moved").width == widths["stages+head"].shape[1]
    other = jax.tree.map(lambda leaf: leaf + np.float32(0.001), variables["params"]["encoder"])
    spoilt = variables | {"params": variables["params"] | {"encoder": other}}
    save_model(tmp_path / "spoilt", model, spoilt, provenance={}, recipe=recipe.name)
    with pytest.raises(UserError, match=rf"spoilt: the trunk's weights are \w+ .* trained on {model.trunk_hash}"):
        contrique_jax.load(tmp_path / "spoilt")
    narrow = dataclasses.replace(model, head_width=8)
    save_model(tmp_path / "narrow", narrow, variables, provenance={}, recipe=recipe.name)
    with pytest.raises(UserError, match=r"narrow/model.safetensors: the weights do not fit .* head\.4\.bias"):
        contrique_jax.load(tmp_path / "narrow")
