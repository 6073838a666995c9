"""Pairs that the bank makes, their teachers, and what a student takes from one run to the next."""

from __future__ import annotations

import numpy as np
import pytest

from contrique_jax.data.bank_pairs import SIDE, BankPairs
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.ms_ssim import BEST, ms_ssim
from contrique_jax.data.sources import CachedSource, open_source
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.networks.model_folder import save_model
from contrique_jax.recipes.opinions.teacher import Teacher, judged
from contrique_jax.recipes.student import recipe
from contrique_jax.recipes.student.config import StudentConfig, StudentModel

NOISE = 11  # the type of the bank that is quickest to compile
MODEL = StudentModel("random", "", "resnet10", 4, "unit", width=8, depth=1, heads=2, hidden=16)


@pytest.fixture(scope="module")
def pairs():
    scenes = open_source("scenes:3", role="pristine", field="f", canvas=(SIDE, SIDE))
    return CachedSource(BankPairs(scenes, 0, pairs=3, types=(NOISE,)), 1 << 26)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A student of random weights, whose scores of 1 to 5 fall with quality."""
    config = StudentConfig(model=MODEL)
    config.model.crop_count, config.model.crop_size = 1, 32
    variables = recipe.init(config, 0)
    variables["scale"] = {"zero": 5.0, "unit": -4.0, "low": 1.0, "high": 5.0}
    architecture, kept = recipe.finished(config, variables, recipe.constants(config))
    save_model(tmp_path_factory.mktemp("student") / "model", architecture, kept, provenance={}, recipe="student")
    return next(tmp_path_factory.getbasetemp().glob("student*/model"))


def test_pairs_come_again_as_they_were(pairs):
    again = BankPairs(pairs.source.photographs, 0, pairs=3, types=(NOISE,))
    assert len(pairs) == 9 and pairs.load(4).shape == (2, SIDE, SIDE, 3)
    np.testing.assert_array_equal(pairs.load(4), again.load(4))
    assert np.any(pairs.load(3)[0] != pairs.load(4)[0]) and np.any(pairs.load(4)[0] != pairs.load(4)[1])
    assert pairs.item_name(4) == "scenes:3[1] #1"


def test_ms_ssim_falls_with_noise_and_equal_images_are_best(pairs):
    clean = pairs.load(0)[1]
    noise = np.random.default_rng(0).normal(0, 1, clean.shape)
    images = np.stack([np.clip(clean + s * noise, 0, 255).astype(np.uint8) for s in (0, 5, 20, 60)])
    found = ms_ssim(images, np.stack([clean] * 4))
    assert found[0] == BEST and (np.diff(found) < -1).all() and found[-1] >= 0


def test_a_teacher_scores_every_pair(pairs, folder):
    by_measure = judged(pairs, "ms-ssim", BrokenLog(), 1)
    stacks = np.stack([pairs.load(i) for i in range(9)])
    np.testing.assert_allclose(by_measure.scores, ms_ssim(stacks[:, 0], stacks[:, 1]), rtol=1e-5)
    assert by_measure.higher_is_better
    teacher = Teacher(str(folder))
    assert not teacher.higher_is_better
    by_model = judged(pairs, str(folder), BrokenLog(), 1)
    np.testing.assert_allclose(by_model.scores[:8], teacher(stacks[:8, 0], stacks[:8, 1]), rtol=1e-5)


def test_a_photograph_that_cannot_be_read_costs_its_own_pairs_alone(pairs):
    class Torn(BankPairs):
        def load(self, i):
            if i // 3 == 1:
                raise BrokenImage("torn.png", "it is cut off")
            return super().load(i)

    broken = BrokenLog(quiet=True)
    found = judged(Torn(pairs.source.photographs, 0, 3, (NOISE,)), "ms-ssim", broken, 1)
    assert broken.count == 1 and len(found.scores) == 9 and np.ptp(found.scores[3:7]) < 1e-4


def test_what_is_no_teacher_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"config\.data\.teacher=nowhere: there is no such model; give a model folder"):
        Teacher("nowhere")
    (tmp_path / "model.json").write_text('{"format_version": 1, "recipe": "gone"}')
    with pytest.raises(UserError, match="there is no recipe 'gone'"):
        Teacher(str(tmp_path))


def test_a_student_goes_on_from_its_own_kind_on_the_same_trunk(folder):
    from contrique_jax.recipes.stored import stored_model

    config = StudentConfig(
        model=StudentModel("random", "", "resnet10", 4, "unit", width=8, depth=1, heads=2, hidden=16)
    )
    theirs, weights = stored_model(folder)
    drawn = recipe.init(config, 5)
    taken, said = recipe.take_over(config, drawn, theirs.model, weights)
    assert said == "its transformer and head" and float(taken["scale"]["unit"]) == 1
    np.testing.assert_array_equal(taken["params"]["mixer"]["token"], weights["params"]["mixer"]["token"])
    config.model.width = 16
    with pytest.raises(UserError, match="its widths are"):
        recipe.take_over(config, drawn, theirs.model, weights)
