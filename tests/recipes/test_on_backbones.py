"""AHIQ and IQA-Conformer: what they stand on, and what their configs refuse."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.networks.encoder import init_model
from contrique_jax.networks.model_folder import save_model, to_flat
from contrique_jax.networks.pairs import apart, in_turn
from contrique_jax.recipes import recipe_named, recipe_of
from contrique_jax.recipes.ahiq.config import AhiqConfig, AhiqModel
from contrique_jax.recipes.conformer.config import ConformerConfig, ConformerModel
from contrique_jax.recipes.conformer.recipe import _turned
from contrique_jax.recipes.opinions.rows import Rows

ON_OURS = {
    "trunk": "random",
    "encoder": "resnet10",
    "base_width": 4,
    "input_scaling": "unit",
    "compute_dtype": "float32",
}


def test_a_missing_backbone_is_one_sentence(tmp_path):
    for config, words in (
        (
            AhiqConfig(model=AhiqModel(vit=str(tmp_path), resnet="random")),
            r"config\.model\.vit=.*no such folder of a frozen vit",
        ),
        (ConformerConfig(), r"config\.model\.inception=: there is no such folder of a frozen inception_resnet_v2"),
    ):
        with pytest.raises(UserError, match=words):
            recipe_of(config).constants(config)
    small = dataclasses.replace(AhiqModel(), vit="random", vit_width=64, vit_heads=1, vit_side=2, resnet=str(tmp_path))
    with pytest.raises(UserError, match=r"config\.model\.resnet=.*there is no such model folder"):
        recipe_named("ahiq").constants(AhiqConfig(model=small))
    encoder = dataclasses.replace(small_encoder(), encoder="resnet10")
    save_model(tmp_path, encoder, init_model(encoder, 0), provenance={})
    with pytest.raises(UserError, match="it is a resnet10 of base width 4, and must be a resnet50 of 64"):
        recipe_named("ahiq").constants(AhiqConfig(model=small))


def small_encoder():
    return AhiqModel(**ON_OURS).of_trunk


def test_crops_must_fit_the_maps_and_the_positions():
    config = ConformerConfig()
    config.data.view_size = 224
    with pytest.raises(UserError, match=r"data\.view_size = 224: must be model\.crop_size, 192"):
        config.validate()
    with pytest.raises(UserError, match=r"model\.crop_size = 40: must be a multiple of 16"):
        AhiqModel(crop_size=40, **ON_OURS).validate()
    with pytest.raises(UserError, match=r"model\.encoder = .?resnet9.?: must be vit_resnet50 or one of"):
        AhiqModel(encoder="resnet9").validate()


def test_without_a_reference_the_conformer_judges_alone():
    model = ConformerModel(
        mode="no-reference", width=8, heads=2, hidden=16, kernel=3, crop_count=1, crop_size=32, **ON_OURS
    )  # fmt: skip
    config, recipe = ConformerConfig(model=model), recipe_named("conformer")
    assert recipe.takes_reference(config) == "never"
    _, variables = recipe.finished(config, recipe.init(config, 0), recipe.constants(config))
    assert not any("cross" in name for name in to_flat(variables))
    images = jnp.asarray(np.random.default_rng(0).random((2, 40, 36, 3)), jnp.float32)
    assert recipe.apply(config, variables, images, None).shape == (2,)


def test_each_row_is_turned_by_an_angle_of_its_own():
    """A row's angle hangs on its key alone."""
    model = ConformerModel(width=8, heads=2, hidden=16, kernel=3, dropout=0.0, crop_size=32, **ON_OURS)
    config, recipe = ConformerConfig(model=model), recipe_named("conformer")
    images = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8), 3, axis=0)
    keys = np.stack([jax.random.key_data(jax.random.key(i)) for i in (1, 2, 1)])
    turned = np.asarray(_turned(jnp.asarray(images), jnp.asarray(keys), np.pi))
    assert (turned[0] == turned[2]).all() and (turned[0] != turned[1]).any()
    batch = Rows(images, images, *(np.ones(3, np.float32) for _ in range(2)), np.zeros((3, 4), np.float32))
    outputs, changed = recipe.forward(config, recipe.init(config, 0), recipe.constants(config), batch, keys, None)
    assert outputs.shape == (3,) and outputs[0] == outputs[2] != outputs[1] and np.isfinite(outputs).all()
    assert set(changed) == {"batch_stats"}


def test_pairs_lie_side_by_side_and_come_apart():
    a, b = np.arange(6).reshape(3, 2), 10 + np.arange(6).reshape(3, 2)
    rows = in_turn(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_array_equal(rows[:2], [a[0], b[0]])
    for found, wanted in zip(apart(rows), (a, b), strict=True):
        np.testing.assert_array_equal(found, wanted)
