"""Encoder blocks against torch's own numbers, and what attention promises."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrique_jax.networks.attention import Encoder, dropped, sine_positions
from contrique_jax.networks.layers import decayed, drawn
from tests.reference_weights import rebuilt

WIDTH, HEADS, HIDDEN = 32, 4, 64
KINDS = {"post_relu": {"pre_norm": False, "activation": jax.nn.relu}, "pre_gelu": {}}


def encoder(kind: str) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(Encoder(2, WIDTH, HEADS, HIDDEN, **KINDS[kind]))


def torch_weights(shared, kind: str) -> dict:
    """The reference's weights as nested arrays by our names."""
    shapes = json.loads((shared / "systems/reference/zeng_kwong_blocks_shapes.json").read_text())
    torch = {
        name.removeprefix(f"{kind}."): rebuilt(name, tuple(shape)) for name, shape in shapes.items() if kind in name
    }
    found: dict = {"norm": _norm(torch, "norm")} if "norm.weight" in torch else {}
    for i in range(2):
        at = f"layers.{i}"
        weight, bias = (torch[f"{at}.self_attn.in_proj_{part}"] for part in ("weight", "bias"))
        heads = {
            name: {"kernel": w.T.reshape(WIDTH, HEADS, -1), "bias": b.reshape(HEADS, -1)}
            for name, w, b in zip(("query", "key", "value"), np.split(weight, 3), np.split(bias, 3), strict=True)
        }
        out = torch[f"{at}.self_attn.out_proj.weight"].T.reshape(HEADS, -1, WIDTH)
        heads["out"] = {"kernel": out, "bias": torch[f"{at}.self_attn.out_proj.bias"]}
        found[str(i)] = {"attention": heads} | {f"norm{j}": _norm(torch, f"{at}.norm{j}") for j in (1, 2)}
        for j in (1, 2):
            kernel, bias = (torch[f"{at}.linear{j}.{part}"] for part in ("weight", "bias"))
            found[str(i)][f"linear{j}"] = {"kernel": kernel.T, "bias": bias}
    return found


def _norm(torch: dict, name: str) -> dict:
    return {"scale": torch[f"{name}.weight"], "bias": torch[f"{name}.bias"]}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_torchs_encoder(shared, kind):
    """Outputs and gradients within 1e-5 of their largest value."""
    graph, state = encoder(kind)
    weights = torch_weights(shared, kind)
    with np.load(shared / "systems/reference/zeng_kwong_blocks.npz") as data:
        told = dict(data)

    def given(weights, x):
        nnx.replace_by_pure_dict(state, weights)
        y = nnx.merge(graph, state)(x)
        return jnp.sum(y * told["cotangent"]), y

    (_, y), (of_weights, of_x) = jax.jit(jax.value_and_grad(given, (0, 1), has_aux=True))(weights, told["x"])
    for ours, name in ((y, "output"), (of_x, "grad_input")):
        wanted = told[f"{kind}/{name}"]
        np.testing.assert_allclose(ours, wanted, atol=1e-5 * np.abs(wanted).max())
    norms = dict(zip(told[f"{kind}/grad_names"], told[f"{kind}/grad_norms"], strict=True))
    linear = [
        (f"{kind}.layers.{i}.linear{j}.weight", of_weights[str(i)][f"linear{j}"]["kernel"])
        for i in (0, 1)
        for j in (1, 2)
    ]
    out = [
        (f"{kind}.layers.{i}.self_attn.out_proj.weight", of_weights[str(i)]["attention"]["out"]["kernel"])
        for i in (0, 1)
    ]
    for name, gradient in linear + out:
        wanted = norms.get(name, norms.get(name.removeprefix(f"{kind}.")))
        np.testing.assert_allclose(np.linalg.norm(gradient), wanted, rtol=1e-4)


def test_what_is_not_there_is_not_looked_at_and_order_is_kept():
    graph, state = encoder("pre_gelu")
    network = nnx.merge(graph, state)
    x = np.random.default_rng(0).standard_normal((2, 9, WIDTH)).astype(np.float32)
    alone = network(x[:, :6])
    beside = network(x, jnp.arange(9)[None] < jnp.array([[6], [6]]))
    np.testing.assert_allclose(beside[:, :6], alone, atol=1e-6)
    turned = np.random.default_rng(1).permutation(9)
    np.testing.assert_allclose(network(x[:, turned]), network(x)[:, turned], atol=1e-5)


def test_every_weight_says_how_it_starts_and_what_decays():
    params = encoder("pre_gelu")[1]
    first, other = drawn(params, 0), drawn(params, 1)
    kernels = decayed(params)["0"]
    assert kernels["attention"]["query"] == {"kernel": True, "bias": False}
    assert kernels["norm1"] == {"scale": False, "bias": False} and kernels["linear1"]["kernel"]
    assert np.abs(first["0"]["linear1"]["kernel"]).max() < WIDTH**-0.5
    assert np.any(first["0"]["attention"]["out"]["kernel"] != other["0"]["attention"]["out"]["kernel"])


def test_dropout_is_each_rows_own():
    keys = jax.vmap(lambda row: jax.random.key_data(jax.random.fold_in(jax.random.key(0), row)))(jnp.arange(4))
    x = jnp.ones((4, 8))
    whole = dropped(x, 0.5, keys, 0)
    np.testing.assert_array_equal(dropped(x[2:], 0.5, keys[2:], 0), whole[2:])
    assert np.any(whole[0] != whole[1]) and np.any(whole != dropped(x, 0.5, keys, 1))
    assert dropped(x, 0.5, None, 0) is x


def test_positions_differ_everywhere():
    flat = sine_positions(7, 5, 16).reshape(35, 16)
    assert len(np.unique(flat.round(4), axis=0)) == 35
