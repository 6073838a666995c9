"""Learning rate, SGD and the decay mask, against PyTorch and by name."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrique_jax.config import OPTIMISERS, SCHEDULES, Config, ModelConfig, OptimConfig
from contrique_jax.networks.encoder import init_model
from contrique_jax.recipes.contrique import recipe
from contrique_jax.training.optim import learning_rate, optimiser


def test_learning_rate_is_warm_up_then_cosine():
    optim, steps = OptimConfig(learning_rate=0.6, warmup_share=0.1), 100
    rates = np.array([learning_rate(optim, steps, step) for step in range(steps)])
    expected = [
        0.6 * (step + 1) / 10 if step < 10 else 0.3 * (1 + math.cos(math.pi * (step - 10) / 90)) for step in range(100)
    ]
    np.testing.assert_allclose(rates, expected, rtol=2e-6, atol=1e-7)
    assert rates.max() == np.float32(0.6)


def test_learning_rate_equals_pytorch_schedulers(torch):
    optim, steps, warmup = OptimConfig(learning_rate=0.6, warmup_share=0.1), 100, 10
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.6)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps - warmup)
    rising = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / warmup, 1.0, warmup - 1)
    chain = torch.optim.lr_scheduler.SequentialLR(optimiser, [rising, cosine], [warmup])
    theirs = []
    for _ in range(steps):
        theirs.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        chain.step()
    ours = [float(learning_rate(optim, steps, step)) for step in range(steps)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_restarts_equal_pytorchs(torch, growth):
    optim = OptimConfig(
        learning_rate=0.3, schedule="cosine_restarts", restart_steps=7, restart_growth=growth, warmup_share=0.0
    )
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, T_0=7, T_mult=growth)
    expected = []
    for _ in range(200):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        scheduler.step()
    ours = [float(learning_rate(optim, 200, step)) for step in range(200)]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_a_wave_equals_pytorchs_cosine_beyond_its_length(torch):
    """Stepped every iteration with a length of 50, as SaTQA's authors do."""
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=3e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    theirs = []
    for _ in range(230):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    optim = OptimConfig(learning_rate=3e-4, schedule="cosine_wave", restart_steps=50, warmup_share=0.0)
    np.testing.assert_allclose(learning_rate(optim, 230, np.arange(230)), theirs, rtol=1e-4, atol=1e-9)


def test_a_constant_rate_stays():
    optim = OptimConfig(learning_rate=0.2, schedule="constant", warmup_share=0.1)
    assert [float(learning_rate(optim, 20, step)) for step in (0, 1, 2, 19)] == pytest.approx([0.1, 0.2, 0.2, 0.2])


def test_every_name_that_a_config_takes_is_there():
    for schedule in SCHEDULES:
        assert float(learning_rate(OptimConfig(schedule=schedule), 10, 5)) >= 0
    kinds = {
        type(optimiser(OptimConfig(optimiser=name), 10, {"w": True}).init({"w": jnp.ones(3)})) for name in OPTIMISERS
    }
    assert kinds == {tuple}
    for wrong in ({"optimiser": "adagrad"}, {"schedule": "linear"}):
        with pytest.raises(ValueError):
            optimiser(OptimConfig(**wrong), 10, {"w": True})
            learning_rate(OptimConfig(**wrong), 10, 5)


def test_no_warm_up_starts_at_the_peak():
    assert float(learning_rate(OptimConfig(learning_rate=0.5, warmup_share=0.0), 10, 0)) == 0.5


def test_sgd_equals_pytorch_over_twenty_steps(torch):
    generator = np.random.default_rng(0)
    weight, bias = generator.standard_normal((3, 4)), generator.standard_normal(3)
    inputs, targets = generator.standard_normal((20, 8, 4)), generator.standard_normal((20, 8, 3))
    layer = torch.nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    groups = [{"params": [layer.weight], "weight_decay": 0.01}, {"params": [layer.bias], "weight_decay": 0.0}]
    optim = OptimConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.01, warmup_share=0.0)
    theirs = torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    params = {"fc": {"kernel": jnp.asarray(weight.T, jnp.float32)}, "bn1": {"bias": jnp.asarray(bias, jnp.float32)}}
    ours = optimiser(optim, 20, {"fc": {"kernel": True}, "bn1": {"bias": False}})
    state = ours.init(params)

    def loss(params, x, y):
        return jnp.mean((x @ params["fc"]["kernel"] + params["bn1"]["bias"] - y) ** 2)

    for step in range(20):
        for group in theirs.param_groups:
            group["lr"] = float(learning_rate(optim, 20, step))
        theirs.zero_grad()
        x, y = (torch.tensor(part[step], dtype=torch.float32) for part in (inputs, targets))
        torch.mean((layer(x) - y) ** 2).backward()
        theirs.step()
        gradients = jax.grad(loss)(
            params, jnp.asarray(inputs[step], jnp.float32), jnp.asarray(targets[step], jnp.float32)
        )
        updates, state = ours.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["fc"]["kernel"], layer.weight.detach().numpy().T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(params["bn1"]["bias"], layer.bias.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adam_equals_pytorch_over_twenty_steps(torch, name):
    """Weight decay in the gradient's moments or apart from them."""
    generator = np.random.default_rng(1)
    weight, bias = generator.standard_normal((4, 3)).astype(np.float32), generator.standard_normal(3).astype(np.float32)
    slopes = generator.standard_normal((20, 5, 3)).astype(np.float32)
    optim = OptimConfig(
        optimiser=name.lower(),
        learning_rate=0.01,
        weight_decay=0.1,
        momentum_square=0.99,
        schedule="constant",
        warmup_share=0.0,
    )
    ours, params = optimiser(optim, 20, {"w": True, "b": False}), {"w": jnp.asarray(weight), "b": jnp.asarray(bias)}
    state = ours.init(params)
    tensors = [torch.tensor(weight, requires_grad=True), torch.tensor(bias, requires_grad=True)]
    groups = [{"params": [tensors[0]], "weight_decay": 0.1}, {"params": [tensors[1]], "weight_decay": 0.0}]
    theirs = getattr(torch.optim, name)(groups, lr=0.01, betas=(0.9, 0.99))
    for slope in slopes:
        updates, state = ours.update({"w": jnp.asarray(slope[:4]), "b": jnp.asarray(slope[4])}, state, params)
        params = optax.apply_updates(params, updates)
        for tensor, gradient in zip(tensors, (slope[:4], slope[4]), strict=True):
            tensor.grad = torch.tensor(gradient)
        theirs.step()
    np.testing.assert_allclose(params["w"], tensors[0].detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(params["b"], tensors[1].detach().numpy(), rtol=1e-5, atol=1e-6)


def test_lars_scales_each_decayed_array_by_its_norms():
    """The paper's equation 6 with its trust coefficient of .001; what is not decayed takes a plain step."""
    weight, bias = np.full(4, 3.0, np.float32), np.ones(2, np.float32)
    gradients = {"w": jnp.asarray([0.5, -0.5, 1.0, 2.0]), "b": jnp.asarray([0.3, -0.2])}
    optim = OptimConfig(
        optimiser="lars", learning_rate=2.0, weight_decay=0.01, momentum=0.0, schedule="constant", warmup_share=0.0
    )
    rule, params = optimiser(optim, 5, {"w": True, "b": False}), {"w": jnp.asarray(weight), "b": jnp.asarray(bias)}
    updates, _ = rule.update(gradients, rule.init(params), params)
    step = np.asarray(gradients["w"]) + 0.01 * weight
    trust = 0.001 * np.linalg.norm(weight) / np.linalg.norm(step)
    np.testing.assert_allclose(updates["w"], -2.0 * trust * step, rtol=1e-5)
    np.testing.assert_allclose(updates["b"], -2.0 * np.asarray(gradients["b"]), rtol=1e-5)


def test_lars_is_sgd_where_nothing_is_decayed():
    """With a rate that changes: in both it comes behind the buffer."""
    params = {"b": jnp.asarray(np.random.default_rng(0).standard_normal(5), jnp.float32)}
    found = []
    for name in ("lars", "sgd"):
        rule, at = optimiser(OptimConfig(optimiser=name, learning_rate=0.3, warmup_share=0.0), 6, {"b": False}), params
        state = rule.init(at)
        for _ in range(5):
            updates, state = rule.update({"b": jnp.sin(at["b"])}, state, at)
            at = optax.apply_updates(at, updates)
        found.append(at["b"])
    np.testing.assert_array_equal(*found)


@pytest.fixture(scope="module")
def names() -> dict[str, dict[str, bool]]:
    """Mask -> dotted parameter name of a ResNet-50 -> whether it is decayed."""
    model = ModelConfig(encoder="resnet50")
    variables = jax.eval_shape(lambda: init_model(model, 0))
    table = {}
    for mask in ("no_norm", "original", "all"):
        config = Config(model=model, optim=OptimConfig(decay_mask=mask))
        leaves = jax.tree_util.tree_leaves_with_path(recipe.decays(config, variables))
        table[mask] = {".".join(str(part.key) for part in path): bool(leaf) for path, leaf in leaves}
    return table


def test_decay_masks(names):
    assert all(names["all"].values())
    spared = {name for name, touched in names["no_norm"].items() if not touched}
    # 53 BatchNorms in the encoder, 2 in the projector, a weight and a bias each
    assert len(spared) == 2 * (53 + 2)
    assert not any("conv" in name for name in spared)
    also_decayed = spared - {name for name, touched in names["original"].items() if not touched}
    # the stem's, the four downsamplings' and the projector's two
    assert len(also_decayed) == 2 * (1 + 4 + 2)


def test_gradient_scale_spares_the_decay():
    """The original divides the loss's gradient, not what weight decay adds."""
    params, gradients = {"fc": {"kernel": jnp.ones(2)}}, {"fc": {"kernel": jnp.full(2, 0.8)}}
    optim = OptimConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.5, warmup_share=0.0, gradient_scale=0.25)
    rule = optimiser(optim, 10, {"fc": {"kernel": True}})
    updates, _ = rule.update(gradients, rule.init(params), params)
    np.testing.assert_allclose(updates["fc"]["kernel"], -(0.8 / 4 + 0.5), rtol=1e-6)
