"""Readers of models and checkpoints; each function makes one, with its files in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from contrique_jax.config import Config, ModelConfig
from contrique_jax.convert.from_torch import adopt
from contrique_jax.convert.torch_file import read_state_dict
from contrique_jax.errors import UserError
from contrique_jax.io.json_files import read_json
from contrique_jax.networks.encoder import init_model
from contrique_jax.networks.model_folder import flat_shapes, load_model, save_model, to_flat
from contrique_jax.training.checkpoint import Checkpoints, load_for_inference
from contrique_jax.training.run import claim_workdir
from tests.fuzz.foreign_files import changed_bytes, changed_json, changed_zip
from tests.fuzz.reader import Reader

ENCODER = ModelConfig("resnet10", base_width=4, projection_dim=0)
MODEL = ModelConfig("resnet10", base_width=4, projection_dim=8, compute_dtype="float32")


def _model(folder: Path) -> Path:
    save_model(folder / "model", MODEL, init_model(MODEL, 1), provenance={"steps": 10})
    return folder / "model"


def _load(folder: Path) -> None:
    model, variables = load_model(folder)
    assert {name: array.shape for name, array in to_flat(variables).items()} == flat_shapes(model)
    assert all(np.isfinite(array).all() for array in to_flat(variables).values())


def description(folder: Path) -> Reader:
    path = _model(folder) / "model.json"
    whole = read_json(path, 1 << 20)
    return Reader(path, changed_json(whole), lambda path: _load(path.parent))


def config_of_a_run(folder: Path) -> Reader:
    """Of a workdir; what is another run's is refused too."""
    claim_workdir(folder, Config(), {"pristine": 9})
    path = folder / "config.json"

    def read(path: Path) -> None:
        assert claim_workdir(path.parent, Config(), {"pristine": 9})

    return Reader(path, changed_json(read_json(path, 1 << 20)), read)


def weights(folder: Path) -> Reader:
    """Changes of the header, which is JSON, and of the bytes near it."""
    path = _model(folder) / "model.safetensors"
    whole = path.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:size])

    def packed(text: bytes) -> bytes:
        return len(text).to_bytes(8, "little") + text + whole[size:]

    files = changed_json(header).map(packed) | changed_bytes([whole[:size]]).map(lambda data: data + whole[size:])
    return Reader(path, files | st.just(whole), lambda path: _load(path.parent))


def checkpoint(folder: Path) -> Reader:
    """One of its files changed; a few cases, because Orbax takes its time."""
    variables = init_model(MODEL, 1)
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(3, variables, Config(model=MODEL))
    checkpoints.wait()
    checkpoints.close()
    place = folder / "checkpoints" / "3"
    whole = {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
    chosen: list[Path] = []

    def changes(path: Path) -> st.SearchStrategy[bytes]:
        return changed_bytes([whole[path]]).map(lambda data: chosen.append(path) or data)

    def read(path: Path) -> None:
        target = chosen[-1]
        target.write_bytes(path.read_bytes())
        try:
            model, found = load_for_inference(place)
        except UserError as error:
            raise UserError(str(error).replace(str(place), str(path))) from error
        finally:
            target.write_bytes(whole[target])
        assert {name: array.shape for name, array in to_flat(found).items()} == flat_shapes(model)

    return Reader(folder / "changed", st.sampled_from(sorted(whole)).flatmap(changes), read, 150)


def pytorch(folder: Path) -> Reader:
    torch = pytest.importorskip("torch")
    flat = {name.removeprefix("encoder."): array for name, array in to_flat(init_model(ENCODER, 1)).items()}
    state = {name: torch.from_numpy(array.copy()) for name, array in flat.items()}
    state["bn1.weight"] = state["bn1.weight"].half()
    whole = []
    for zipped in (True, False):
        torch.save({"state_dict": state, "epoch": 3}, folder / "c.pth", _use_new_zipfile_serialization=zipped)
        whole.append((folder / "c.pth").read_bytes())

    def read(path: Path) -> None:
        tensors, _ = read_state_dict(path)
        assert all(isinstance(array, np.ndarray) for array in tensors.values())
        adopt(path, tensors, None)
        assert sum(np.isfinite(array).size for array in tensors.values()) < 1e6

    return Reader(folder / "c.pth", changed_bytes(whole) | changed_zip(whole[0]), read)
