"""Images looked at in five crops: where these lie, that their mean is what comes out, in any number of ways."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.augment.five_crops import five_crops
from contrique_jax.data.sizes import half_size
from contrique_jax.errors import UserError
from contrique_jax.inference.any_recipe import EnsembleExtractor
from contrique_jax.inference.recipe_extractor import RecipeExtractor
from contrique_jax.recipes.arniqa import recipe
from contrique_jax.recipes.arniqa.config import ArniqaConfig, ArniqaModel

TINY = ("resnet10", 4, 1, 8, "float32")


@pytest.fixture(scope="module")
def models():
    """The same weights looking at five crops of 64 pixels, and at the whole image."""
    five = ArniqaModel(*TINY, input_scaling="imagenet", crops="five", crop_size=64)
    whole = ArniqaModel(*TINY, input_scaling="imagenet")
    variables = recipe.init(ArniqaConfig(model=whole), 0)
    return [(ArniqaConfig(model=model), variables) for model in (five, whole)]


def test_they_lie_where_the_original_s_do(shared):
    with np.load(shared / "systems" / "reference" / "arniqa.npz") as stored:
        image, half, wanted = (stored[f"crops/{name}"] for name in ("image", "half", "half_crops"))
        sums = stored["crops/full_crops_sum"]
    np.testing.assert_array_equal(half_size(image), half)
    np.testing.assert_array_equal(five_crops(half, 64), wanted)  # of 48 rows: zeros above and below
    np.testing.assert_array_equal(five_crops(image, 64).sum((1, 2, 3), dtype=np.int64), sums)
    np.testing.assert_array_equal(five_crops(jnp.asarray(image), 64), five_crops(image, 64))


def test_features_are_the_mean_over_crops_of_both_sizes(models):
    (config, variables), (plain, _) = models
    images = [np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8) for size in [(97, 131, 3), (64, 40, 3)]]
    five, whole = RecipeExtractor(config, variables), RecipeExtractor(plain, variables)
    width = whole.width // 2
    wanted = []
    for image in images:
        crops = [five_crops(x, 64) for x in (image, half_size(image))]
        wanted.append(np.concatenate([whole.features(list(of_size))[:, :width].mean(0) for of_size in crops]))
    found = five.features(images)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert five.model_hash != whole.model_hash and five._runner.shapes == 1, "one program for images of all sizes"
    pure = np.asarray(five.apply(five.variables, images[0][None] / np.float32(255)))[0]
    np.testing.assert_allclose(pure[:width], found[0, :width], atol=1e-6)
    assert np.linalg.norm(pure - found[0]) < 5e-3 * np.linalg.norm(pure), "the half size is not rounded to bytes there"
    # and beside another model, whatever the memory
    both = EnsembleExtractor({"five": models[0], "whole": models[1]}, memory=0.05)
    apart = np.concatenate([found, whole.features(images)], axis=1)
    np.testing.assert_allclose(both.features(images), apart, atol=1e-6)


def test_a_large_image_takes_no_more_than_its_own_memory(models):
    """12 bytes a pixel."""
    config, variables = models[0]
    for memory, megapixels in ((0.61, 50), (0.12, 10)):
        found = RecipeExtractor(config, variables, memory=memory, max_megapixels=50)
        assert found.max_megapixels == pytest.approx(megapixels)


def test_fields_that_make_no_sense_are_one_sentence():
    for wrong, says in (({"crops": "ten"}, r"model\.crops.*whole, five"), ({"crop_size": 8}, r"model\.crop_size")):
        with pytest.raises(UserError, match=says):
            ArniqaModel(**wrong).validate()
