"""Conformer blocks and Inception-ResNet-v2 against the original's numbers, and the whole of IQA-Conformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrique_jax.networks import plain_transformer
from contrique_jax.networks.conformer import Conformer, Stack, Widths
from contrique_jax.networks.inception_resnet import Block35, InceptionResNet, Mixed
from contrique_jax.networks.layers import RUNNING, Statistics
from contrique_jax.networks.model_folder import from_flat, to_flat
from contrique_jax.networks.plain_transformer import FEED, PlainTransformer
from contrique_jax.networks.skeleton import moved, skeleton
from tests.reference_weights import close, close_summary, gradient_norms, nchw, nhwc, system_state

FLOAT32 = jnp.dtype("float32")
SIZES = (16, 4, 64, 7)


class Both(nnx.Module):
    """An encoder of two blocks and a decoder of one, as in the reference."""

    def __init__(self) -> None:
        self.encoder, self.decoder = Stack(2, *SIZES, False, FLOAT32), Stack(1, *SIZES, True, FLOAT32)

    def __call__(self, difference: jax.Array, reference: jax.Array, statistics: Statistics) -> tuple[Any, Any]:
        encoded = self.encoder(difference, statistics)
        return encoded, self.decoder(reference, statistics, memory=encoded)


@pytest.fixture(scope="module")
def parts(shared: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(small weights by name, the original's numbers)."""
    with np.load(shared / "systems/reference/conformer_bns_parts.npz") as data:
        numbers = {name: data[name] for name in data}
    state = system_state(shared, "conformer_bns_parts")
    return {name.removeprefix("small."): array for name, array in state.items()}, numbers


def test_blocks_and_their_gradients_are_the_originals(parts):
    state, data = parts
    kept = {name: array for name, array in state.items() if name.startswith(("encoder.", "decoder."))}
    variables, own = from_flat(kept), skeleton(Both)

    def run(params, difference, reference):
        network = own.bind(variables | {"params": params})
        encoded, decoded = network(difference, reference, RUNNING)
        return jnp.sum(decoded * data["conformer/cotangent"]), (encoded, decoded)

    inputs = (jnp.asarray(data["conformer/x_diff"]), jnp.asarray(data["conformer/x_ref"]))
    (of_params, *of_inputs), found = jax.jit(jax.grad(run, (0, 1, 2), has_aux=True))(variables["params"], *inputs)
    for name, array in zip(("encoded", "decoded"), found, strict=True):
        close(array, data[f"conformer/{name}"], 1e-5)
    for name, array in zip(("grad_x_diff", "grad_x_ref"), of_inputs, strict=True):
        close(array, data[f"conformer/{name}"], 1e-5)
    wanted = dict(zip(data["conformer/grad_names"], data["conformer/grad_norms"], strict=True))
    norms = gradient_norms(of_params)
    assert {f"small.{name}" for name in norms} == set(wanted)
    scale = max(wanted.values())  # a key's bias has no gradient but rounding
    assert max(abs(norms[name.removeprefix("small.")] - norm) for name, norm in wanted.items()) <= 1e-5 * scale

    network = own.bind(variables)
    trained = network(*inputs, Statistics(1))
    for name, array in zip(("encoded", "decoded"), trained, strict=True):
        close(array, data[f"conformer/train_{name}"], 1e-5)
    after = to_flat({"params": {}, "batch_stats": moved(network)})
    for name, array in after.items():
        close(array, data[f"conformer/after/small.{name}"], 1e-5)


class BothPlain(nnx.Module):
    """The same of the plain variant, by the names of the reference."""

    def __init__(self) -> None:
        self.tencoder = plain_transformer.Stack(FEED["encoder"], 2, 16, 4, 128, False, FLOAT32)
        self.tdecoder = plain_transformer.Stack(FEED["decoder"], 1, 16, 4, 128, True, FLOAT32)

    def __call__(self, difference: jax.Array, reference: jax.Array) -> tuple[Any, Any]:
        encoded = self.tencoder(difference)
        return encoded, self.tdecoder(reference, memory=encoded)


def test_plain_blocks_are_the_originals(parts):
    state, data = parts
    variables = from_flat({k: v for k, v in state.items() if k.startswith(("tencoder.", "tdecoder."))})
    network = skeleton(BothPlain).bind(variables)
    found = network(jnp.asarray(data["transformer/x_diff"]), jnp.asarray(data["transformer/x_ref"]))
    for name, array in zip(("encoded", "decoded"), found, strict=True):
        close(array, data[f"transformer/{name}"], 1e-5)


def test_mixed_5b_and_a_residual_block_are_the_originals(parts):
    state, data = parts
    x = nhwc(data["inception/x"])
    for kind, name in ((Mixed, "mixed5b"), (Block35, "block35")):
        kept = {key.removeprefix(f"{name}."): array for key, array in state.items() if key.startswith(f"{name}.")}
        network = skeleton(kind, FLOAT32).bind(from_flat(kept))
        x = jax.jit(lambda x, network=network: network(x, RUNNING))(jnp.asarray(x))
        close(nchw(x), data[f"inception/{name}"], 1e-5)


@pytest.mark.parametrize("kind", [Conformer, PlainTransformer])
def test_without_a_reference_there_is_no_cross_attention(kind):
    widths = Widths(inputs=6, grid=3, width=8, heads=2, hidden=16, paired=False)
    own = skeleton(kind, widths, FLOAT32)
    assert not any("cross" in name for name in to_flat(own.init(0)))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 3, 6)), jnp.float32)
    assert own.bind(own.init(0))(x, None, RUNNING).shape == (2,)


def test_dropout_is_drawn_by_each_rows_key(parts):
    own = skeleton(Conformer, Widths(inputs=6, grid=3, width=8, heads=2, hidden=16, dropout=0.5, paired=False), FLOAT32)
    network = own.bind(own.init(0))
    x = jnp.broadcast_to(jnp.linspace(-1, 1, 54).reshape(1, 3, 3, 6), (3, 3, 3, 6))
    keys = jax.vmap(lambda i: jax.random.key_data(jax.random.key(i)))(jnp.array([1, 2, 1]))
    found = network(x, None, RUNNING, keys)
    assert found[0] == found[2] != found[1]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "table"), [(Conformer, "conformer"), (PlainTransformer, "transformer")])
def test_the_whole_network_is_the_originals(shared: Path, kind, table):
    from contrique_jax.convert.torch_opinions import conformer_names

    state = system_state(shared, "conformer_bns", table)
    flat = {ours: state[theirs] for ours, theirs in conformer_names(state).items()}
    backbone = from_flat({k.removeprefix("inception."): v for k, v in flat.items() if k.startswith("inception.")})
    variables = from_flat({k: v for k, v in flat.items() if not k.startswith("inception.")})
    own = skeleton(kind, Widths(hidden=512 if kind is Conformer else 1024), FLOAT32)
    frozen = skeleton(InceptionResNet, FLOAT32).bind(backbone)
    with np.load(shared / "systems/reference/conformer_bns.npz") as data:
        r = np.random.default_rng(2819)
        reference = r.integers(0, 256, (2, 192, 192, 3), np.uint8)
        distorted = np.clip(reference + r.integers(-40, 41, reference.shape), 0, 255)
        maps = {}
        for name, images in (("ref", reference), ("dis", distorted)):
            maps[name] = jax.jit(lambda x: frozen(x, RUNNING))((jnp.asarray(images, jnp.float32) / 255 - 0.5) / 0.5)
            for stage, tapped in zip(("mixed5b", *(f"block35_{i}" for i in range(2, 12, 2))), maps[name], strict=True):
                close_summary(nchw(tapped), data, f"conformer/backbone/{stage}/{name}", 2e-5)
        joined = {name: jnp.concatenate(tapped, axis=3) for name, tapped in maps.items()}

        def loss(params):
            output = own.bind(variables | {"params": params})(joined["dis"], joined["ref"], RUNNING)
            return jnp.mean((output - data[f"{table}/target"][:, 0]) ** 2), output

        (mse, output), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
        close(output[:, None], data[f"{table}/output"], 2e-5)
        close(121.5351 * output[:, None] + 1448.9595, data[f"{table}/score"], 1e-6)
        close(mse, data[f"{table}/mse"], 2e-5)
        norms = gradient_norms(gradients)
        wanted = dict(zip(data[f"{table}/grad_names"], data[f"{table}/grad_norms"], strict=True))
        assert set(norms) == set(wanted)
        scale = max(wanted.values())
        assert max(abs(norms[name] - norm) for name, norm in wanted.items()) <= 1e-4 * scale
