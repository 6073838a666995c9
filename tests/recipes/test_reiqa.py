"""Re-IQA against numbers of the original program, and what its queue promises."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from contrique_jax.config import ModelConfig, OptimConfig
from contrique_jax.data.sizes import half_size
from contrique_jax.errors import UserError
from contrique_jax.losses.queue_nce import entered, queue_nce
from contrique_jax.networks.layers import RUNNING
from contrique_jax.networks.model_folder import from_flat, to_flat
from contrique_jax.networks.pair_projector import project
from contrique_jax.networks.pooling import normalise
from contrique_jax.recipes.recipe import all_rows
from contrique_jax.recipes.reiqa import recipe
from contrique_jax.recipes.reiqa.config import ReiqaConfig, ReiqaLoss, ReiqaModel
from contrique_jax.training import mesh
from contrique_jax.training.optim import learning_rate, optimiser
from tests.recipes.test_contract import after, batches_of
from tests.recipes.tiny import tiny
from tests.reference_weights import REIQA_NORMS, check_as_true, reiqa_state_dict

WHOLE = ReiqaModel("resnet50", compute_dtype="float32", patches=1)
LOSS = {"temperature": 0.2, "block_size": 40}


def variables_of(shared) -> dict:
    """The original's weights by the reference's rule, as variables of `WHOLE`."""
    state = {
        name: value for name, value in reiqa_state_dict(shared).items() if not name.endswith("num_batches_tracked")
    }
    return from_flat({name.replace("head.", "projector."): value for name, value in state.items()})


@pytest.fixture(scope="module")
def stored(shared):
    with np.load(shared / "systems" / "reference" / "reiqa.npz") as data:
        return dict(data)


def near(ours, wanted, most: float) -> None:
    assert np.linalg.norm(ours - wanted) <= most * np.linalg.norm(wanted)


# the loss and its queue


@functools.partial(jax.jit, static_argnames=("group", "everyone"))
def value_and_pull(q, k, queue, group=1, everyone=False):
    return jax.value_and_grad(queue_nce)(q, k, queue, group=group, everyone=everyone, **LOSS)


def test_three_steps_of_the_queue_are_the_originals(stored):
    """Losses, gradients and the queue itself, which goes round its end; and with the keys of a group among the negatives."""
    queue, pointer = jnp.asarray(stored["queue/memory0"]), jnp.int32(0)
    for step in range(3):
        q, k = (stored[f"queue/{step}/{name}"] for name in "qk")
        for group, name in ((1, ""), (10, "variant_")):
            loss, gradient = value_and_pull(q, k, queue, group)
            np.testing.assert_allclose(loss, stored[f"queue/{step}/{name}loss"], rtol=1e-5)
            near(gradient, stored[f"queue/{step}/{name}grad_q"], 1e-3)
        queue, pointer = entered(queue, pointer, k)
        np.testing.assert_array_equal(queue, stored[f"queue/{step}/memory_after"])
        assert pointer == stored[f"queue/{step}/pointer_after"]


def rows_of_unit_length(*shape: int, seed: int = 0):
    return np.asarray(normalise(jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)))


def test_with_all_other_keys_it_is_nt_xent_of_one_side():
    """And the queue's rows beside: in float64, with everything in sight."""
    q, k, queue = (rows_of_unit_length(n, 8, seed=n) for n in (12, 13, 90))
    k = k[:12]
    loss, gradient = value_and_pull(q, k, queue, everyone=True)
    s = np.concatenate([q @ k.T, q @ queue.T], axis=1).astype(np.float64) / 0.2
    weights = np.exp(s - np.log(np.exp(s).sum(1, keepdims=True)))
    np.testing.assert_allclose(loss, np.mean(np.log(np.exp(s).sum(1)) - np.diag(s[:, :12])), rtol=1e-5)
    near(gradient, (weights @ np.concatenate([k, queue]) - k) / 0.2 / 12, 1e-4)


@pytest.mark.parametrize("length", [7, 12, 30])
def test_the_queue_holds_the_last_keys_in_order(length):
    """From the pointer on and round: the last keys of all steps, the oldest first, at any length."""
    queue, pointer = jnp.asarray(rows_of_unit_length(length, 3)), jnp.int32(0)
    entering = [*np.asarray(queue)]
    for step in range(9):
        keys = rows_of_unit_length(7, 3, seed=step)
        queue, pointer = entered(queue, pointer, jnp.asarray(keys))
        entering += [*keys]
        np.testing.assert_array_equal(np.roll(queue, -int(pointer), axis=0), np.stack(entering[-length:]))


def test_queue_and_loss_are_the_same_on_four_devices_at_any_length():
    q, k, queue = (rows_of_unit_length(n, 4, seed=n) for n in (24, 25, 37))
    k = k[:24]

    @functools.partial(jax.jit, static_argnums=3)
    def on(q, k, queue, devices):
        def split(q, k, queue):
            keys = all_rows(k, mesh.DATA_AXIS)
            both = [queue_nce(q, k, queue, everyone=all, axis=mesh.DATA_AXIS, **LOSS) for all in (False, True)]
            return jnp.stack(both), *entered(queue, jnp.int32(30), keys)

        rows, everywhere = P(mesh.DATA_AXIS), P()
        run = mesh.start(24, devices, 1).mesh
        return jax.shard_map(split, mesh=run, in_specs=(rows, rows, everywhere), out_specs=everywhere)(q, k, queue)

    one, four = on(q, k, queue, 1), on(q, k, queue, 4)
    np.testing.assert_allclose(four[0], one[0], rtol=1e-6)
    np.testing.assert_array_equal(four[1], one[1])
    assert int(four[2]) == int(one[2]) == (30 + 24) % 37


# the network and a step


@pytest.mark.slow
def test_features_and_projections_are_the_originals(shared, stored):
    """At both sizes, of both kinds; features are as long as they come."""
    variables, images = variables_of(shared), stored["eval/images"]
    imagenet = {"input_scaling": "imagenet", "kind": "content"}
    quality_aware, content_aware = (
        jax.jit(functools.partial(lambda model, v, x: recipe.apply(ReiqaConfig(model=model), v, x, None), model))
        for model in (WHOLE, dataclasses.replace(WHOLE, **imagenet))
    )
    near(quality_aware(variables, images), stored["eval/features"], 1e-4)
    z, _ = jax.jit(lambda v, x: project(WHOLE.network, v, x, RUNNING, unit=False))(variables, images)
    near(normalise(z), stored["eval/projections"], 1e-4)
    image, half = stored["demo/image"], stored["demo/half"]
    np.testing.assert_array_equal(half_size(image), half)
    for name, encode in (("quality_aware", quality_aware), ("content_aware", content_aware)):
        near(np.concatenate([encode(variables, x[None]) for x in (image, half)], axis=1), stored[f"demo/{name}"], 1e-4)


@pytest.mark.slow
def test_a_training_step_is_the_originals(shared, stored):
    """Queries, keys, loss and gradients; the parameters after LARS; the momentum encoder after it. Through so many layers
    float32 loses more than a thousandth of a gradient in either program, of the head's it does not: norms are compared with
    those of float64, from which ours may be no further than the original's."""
    variables = variables_of(shared)
    config = ReiqaConfig(model=WHOLE, loss=ReiqaLoss(queue=64, negatives="queue"))
    views = np.stack([stored["step/x1"], stored["step/x2"]], axis=1)[:, None]
    queue = {"keys": jnp.asarray(stored["step/memory0"]), "pointer": jnp.int32(0)}
    state = variables | {"momentum": variables["params"], "momentum_stats": variables["batch_stats"], "queue": queue}
    run = mesh.start(8, devices=1, together=1)

    def loss(params, state, views):  # weights as arguments: constants would be folded
        rows, keys = state | {"params": params}, jnp.zeros((8, 2), jnp.uint32)
        outputs, _ = recipe.forward(config, rows, {}, {"views": views}, keys, None)
        split = jax.shard_map(
            lambda state, outputs: recipe.objective(config, state, outputs, None, mesh.DATA_AXIS)[:2],
            mesh=run.mesh, in_specs=(P(), P(mesh.DATA_AXIS)), out_specs=P(),
        )  # fmt: skip
        value, changed = split(state, outputs)
        return value, (outputs, changed)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (outputs, changed)), gradients = step(variables["params"], state, jnp.asarray(views))
    np.testing.assert_allclose(value, stored["step/loss"], rtol=1e-5)
    for name in "qk":
        near(outputs[name][:, 0], stored[f"step/{name}"], 1e-4)
    np.testing.assert_array_equal(changed["queue"]["keys"][:8], outputs["k"][:, 0])
    config.optim.schedule, config.optim.warmup_share = "constant", 0.0
    rule = optimiser(config.optim, 10, recipe.decays(config, variables))
    updates, _ = rule.update(gradients, rule.init(variables["params"]), variables["params"])
    moved = jax.tree.map(lambda a, b: a + b, variables["params"], updates)
    after = recipe.after_update(config, state | {"params": moved})
    for prefix, tree, most in (("grad", gradients, 5e-3), ("after", moved, 1e-4), ("ema", after["momentum"], 1e-5)):
        flat = to_flat({"params": tree, "batch_stats": {}})
        names = [name for name in stored if name.startswith(f"step/{prefix}/")]
        assert names
        for name in names:
            ours = flat[name.removeprefix(f"step/{prefix}/").replace("head.", "projector.")]
            cut = ours[:64] if ours.ndim == 1 else ours.reshape(len(ours), -1)[:16, :64]
            near(cut, stored[name], 1e-3 if "head" in name else most)
    flat = to_flat({"params": gradients, "batch_stats": {}})
    original = dict(zip(stored["step/grad_names"].tolist(), stored["step/grad_norms"].tolist(), strict=True))
    ours = {name: np.linalg.norm(flat[name.replace("head.", "projector.")]) for name in original}
    for name, norm in original.items():
        np.testing.assert_allclose(ours[name], norm, rtol=5e-3)
    check_as_true(ours, original, REIQA_NORMS)


def test_lars_is_the_originals(stored):
    """Three steps at one rate; arrays of one axis neither decay nor are scaled."""
    optim = OptimConfig(optimiser="lars", learning_rate=0.5, weight_decay=0.01, schedule="constant", warmup_share=0.0)
    params = {name: jnp.asarray(stored[f"lars/{name}/0"]) for name in ("w0", "w1", "w2")}
    rule = optimiser(optim, 10, {"w0": True, "w1": False, "w2": True})
    state = rule.init(params)
    for step in range(3):
        gradients = {f"w{i}": jnp.asarray(stored[f"lars/g{i}/{step}"]) for i in range(3)}
        updates, state = rule.update(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        for name, ours in params.items():
            near(ours, stored[f"lars/{name}/{step + 1}"], 1e-6)


def test_rates_are_the_originals(stored):
    optim, steps = ReiqaConfig().optim, 40 * 8
    rates = np.array(jax.vmap(lambda step: learning_rate(optim, steps, step))(np.arange(steps))).reshape(40, 8)
    np.testing.assert_allclose(rates[5:], np.tile(stored["lr/epoch_1_to_40"][5:, None], 8), rtol=1e-5)
    rising = 0.01 + (stored["lr/warm_to"] - 0.01) * np.arange(40) / 40
    np.testing.assert_allclose(rates[:5].ravel(), rising, rtol=1e-5)


@pytest.mark.slow
def test_micro_batches_put_the_same_keys_into_the_queue_on_any_devices():
    """BatchNorm sees a micro-batch, the same rows on any number of devices: all keys of a step, in the batch's order."""
    config, batch = tiny("reiqa", accumulation=2), batches_of("reiqa")[0]
    (losses, state), (on_four, four) = (after(config, [batch], devices) for devices in (1, 4))
    np.testing.assert_allclose(on_four, losses, rtol=1e-5)
    begun, queue = recipe.init(config, 0)["queue"], state.variables["queue"]
    assert int(queue["pointer"]) == 48 == int(four.variables["queue"]["pointer"])
    np.testing.assert_array_equal(queue["keys"][48:], begun["keys"][48:])
    np.testing.assert_allclose(np.linalg.norm(queue["keys"], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(four.variables["queue"]["keys"], queue["keys"], atol=1e-4)
    weights = jax.tree.map(jnp.asarray, recipe.init(config, 0))
    keys = jnp.zeros((4, 2), jnp.uint32)
    first = {"views": jnp.asarray(batch["views"][::2])}  # every second photograph is a micro-batch
    outputs, _ = recipe.forward(config, weights, {}, first, keys, None)
    found = np.asarray(queue["keys"][:48]).reshape(8, 6, 16)
    np.testing.assert_allclose(found[::2], outputs["k"], atol=1e-4)


# what users get wrong


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda c: setattr(c.loss, "queue", 100),
            r"config.loss.queue = 100: must be at least 15,360, the keys of a step",
        ),
        (
            lambda c: setattr(c.model, "kind", "contents"),
            r"config.model.kind = 'contents': must be one of quality, content",
        ),
        (lambda c: setattr(c.model, "kind", "content"), r"config.loss.negatives = 'picture': must be queue or batch"),
        (
            lambda c: setattr(c.data, "types", (3, 27)),
            r"config.data.types = \(3, 27\): must be different numbers from 1 to 26",
        ),
        (lambda c: setattr(c.data, "types", (3, 4)), r"config.data.copies = 12: must be from 2 to 3"),
        (lambda c: setattr(c.data, "overlap_least", 0.28), r"config.data.overlap_least = 0.28: must be above 0"),
        (lambda c: setattr(c.model, "features", "stages"), r"config.model.features = 'stages': must be pooled"),
    ],
)
def test_what_cannot_be_is_one_sentence(change, says):
    config = ReiqaConfig()
    change(config)
    with pytest.raises(UserError, match=says):
        config.validate()


def test_a_run_starts_from_a_model_of_its_own_kind():
    config = ReiqaConfig(
        model=ReiqaModel("resnet18", base_width=4, projection_dim=8, patches=1), loss=ReiqaLoss(queue=50)
    )
    config.train.init_from = "models/other"
    drawn, theirs = (recipe.init(config, seed) for seed in (0, 1))
    taken, said = recipe.take_over(config, drawn, config.model, theirs)
    assert said == "its encoder and its projector"
    for collection, origin in (("params", theirs), ("queue", drawn)):
        jax.tree.map(np.testing.assert_array_equal, taken[collection], origin[collection])
    jax.tree.map(np.testing.assert_array_equal, taken["momentum"], taken["params"])
    with pytest.raises(
        UserError, match=r"models/other: is a content model, and this run's config.model.kind is 'quality'"
    ):
        recipe.take_over(config, drawn, ReiqaModel(kind="content"), theirs)
    with pytest.raises(UserError, match=r"its model.encoder is 'resnet34'"):
        recipe.take_over(config, drawn, ModelConfig("resnet34"), theirs)
