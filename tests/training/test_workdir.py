"""Runs in a bucket: what is there afterwards is what a local run leaves, and whatever fails is one sentence."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from etils.epath import gpath
from PIL import Image

from contrique_jax import features, main
from contrique_jax.config import Config, ModelConfig
from contrique_jax.errors import UserError, run_verb
from contrique_jax.io import buckets
from contrique_jax.networks.model_folder import load_model, save_model
from contrique_jax.training.checkpoint import Checkpoints, load_for_inference
from contrique_jax.training.load import load_network
from contrique_jax.training.step import init_state
from contrique_jax.training.workdir import Workdir
from tests.children import ONE_DEVICE

ROOT = Path(__file__).parents[2]
TINY = Config(model=ModelConfig(encoder="resnet10", base_width=4, projection_dim=8, compute_dtype="float32"))


@pytest.fixture(scope="module")
def state():
    return init_state(TINY, 10)


def variables_of(state):
    return jax.device_get({"params": state.params, "batch_stats": state.batch_stats})


def assert_equal(ours, theirs) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_local_folder_is_itself(tmp_path):
    run = Workdir(tmp_path)
    assert (run.folder, run.checkpoints, run.name) == (tmp_path, tmp_path / "checkpoints", str(tmp_path))
    run.fetch()
    run.publish(required=True)
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_there_once_its_description_is(tmp_path):
    """What a kill leaves of it is written again."""
    run = Workdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"half")
    assert not run.has_model()
    (tmp_path / "model" / "model.json").write_text("{}")
    assert run.has_model()


def test_what_changed_is_copied_up_and_a_resumed_run_has_it(gcs):
    first = Workdir("gs://bucket/copied")
    first.fetch()
    for name in (
        "config.json",
        "metrics.jsonl",
        "broken_images.8.txt",
        "tensorboard/events",
        "model/model.safetensors",
    ):
        (first.folder / name).parent.mkdir(exist_ok=True)
        (first.folder / name).write_text(name)
    (first.folder / ".model.1.writing").mkdir()
    (first.folder / ".model.1.writing" / "model.json").write_text("half")
    first.publish(required=True)
    before = dict(gcs.buckets["bucket"])
    assert gcs.names("bucket", "copied/") == [
        f"copied/{name}"
        for name in (
            "broken_images.8.txt",
            "config.json",
            "metrics.jsonl",
            "model/model.safetensors",
            "tensorboard/events",
        )
    ]
    with open(first.folder / "metrics.jsonl", "a") as file:
        file.write(" and more")
    first.publish(required=True)
    changed = {name for name, entry in gcs.buckets["bucket"].items() if before.get(name) != entry}
    assert changed == {"copied/metrics.jsonl"}

    gcs.put("bucket", "copied/checkpoints/3/state/x", b"")
    second = Workdir("gs://bucket/copied")
    second.fetch()
    assert (second.folder / "metrics.jsonl").read_text() == "metrics.jsonl and more"
    assert (second.folder / "broken_images.8.txt").exists() and (second.folder / "checkpoints").is_dir()
    assert not (second.folder / "model").exists()  # without its description it is not finished
    before = dict(gcs.buckets["bucket"])
    second.publish(required=True)
    assert gcs.buckets["bucket"] == before


def test_a_copy_that_fails_is_said_and_tried_again(gcs, monkeypatch, capsys):
    run = Workdir("gs://bucket/refused")
    (run.folder / "metrics.jsonl").write_text("1")
    with monkeypatch.context() as patch:
        patch.setattr(gcs, "refused", re.compile("refused/metrics"))
        run.publish()
        assert "warning: not copied yet: gs://bucket/refused/metrics.jsonl: access is denied" in capsys.readouterr().err
        with pytest.raises(UserError, match="access is denied"):
            run.publish(required=True)
    run.publish()
    assert gcs.get("bucket", "refused/metrics.jsonl") == b"1"


def test_the_temporary_folder_goes_with_the_run():
    run = Workdir("gs://bucket/short")
    folder = run.folder
    assert folder.is_dir()
    del run
    assert not folder.exists()


def test_a_local_path_seen_before_does_not_lead_orbax_through_tensorflow(gcs, monkeypatch):
    monkeypatch.delenv("EPATH_USE_TF", raising=False)
    gpath._is_tf_installed.cache_clear()
    assert epath.Path("/").exists() and not buckets.orbax_path("gs://bucket/never").exists()


def test_checkpoints_come_back_and_the_last_ones_stay(gcs, state):
    run = Workdir("gs://bucket/kept")
    checkpoints = Checkpoints(run.checkpoints, keep=2)
    assert checkpoints.latest() is None
    for step in (1, 2, 3):
        checkpoints.save(step, state, TINY)
    checkpoints.wait()
    assert_equal(checkpoints.restore(3, jax.tree.map(np.zeros_like, state)), state)
    checkpoints.close()
    assert {name.split("/")[2] for name in gcs.names("bucket", "kept/checkpoints/")} == {"2", "3"}
    for address in ("gs://bucket/kept", "gs://bucket/kept/checkpoints", "gs://bucket/kept/checkpoints/3"):
        model, variables = load_for_inference(address)
        assert model == TINY.model
        assert_equal(variables, variables_of(state))


def test_a_checkpoint_that_is_refused_leaves_the_earlier_one(gcs, state, monkeypatch, capfd):
    checkpoints = Checkpoints(Workdir("gs://bucket/denied").checkpoints)
    checkpoints.save(1, state, TINY)
    checkpoints.wait()
    with monkeypatch.context() as patch:
        patch.setattr(gcs, "refused", re.compile("manifest"))
        with pytest.raises(UserError, match=r"the earlier ones are untouched: access is denied.*\.$"):
            checkpoints.save(2, state, TINY)
            checkpoints.wait()
    checkpoints.close()
    assert "Traceback" not in capfd.readouterr().err
    again = Checkpoints(Workdir("gs://bucket/denied").checkpoints)
    assert again.latest() == 1
    again.close()


def test_networks_in_a_bucket(gcs, state, tmp_path):
    save_model(tmp_path / "model", TINY.model, variables_of(state), provenance={})
    for name in ("model.json", "model.safetensors"):
        gcs.put("bucket", f"trained/model/{name}", (tmp_path / "model" / name).read_bytes())
    for address in ("gs://bucket/trained", "gs://bucket/trained/model/"):
        model, variables = load_network(address)
        assert model == TINY.model
        assert_equal(variables, load_model(tmp_path / "model")[1])
    assert load_network("random:gs://bucket/trained")[0] == TINY.model
    gcs.put("bucket", "damaged/model.json", (tmp_path / "model" / "model.json").read_bytes())
    gcs.put("bucket", "damaged/model.safetensors", b"x")
    with pytest.raises(UserError, match=r"^gs://bucket/damaged/model.safetensors: truncated"):
        load_network("gs://bucket/damaged")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("gs://bucket/nothing", "neither a model folder nor"),
        ("gs://no-such-bucket/run", "it, or its bucket, does not exist"),
        ("gs://secret/run", "no credentials that it accepts"),
        ("gs://B/run", "no address in a bucket"),
        ("hf://someone/model", "only gs://BUCKET/PATH is understood"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(gcs, capsys, tmp_path, address, says):
    Image.new("RGB", (64, 64)).save(tmp_path / "1.png")
    arguments = ["--model", address, "--images", str(tmp_path), "--out", str(tmp_path / "f.npz")]
    assert run_verb(features.main, arguments) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"error: .*{says}.*\.\n", said), said


@pytest.mark.parametrize(
    ("workdir", "says"),
    [
        ("gs://no-such-bucket/run", "gs://no-such-bucket/run: there is no such bucket"),
        ("gs://secret/run", "gs://secret/run: no credentials that it accepts were found"),
        ("gs://bucket/foreign", "gs://bucket/foreign holds checkpoints but no config.json"),
        ("gs://bucket/closed", "gs://bucket/closed/config.json: access is denied"),
    ],
)
def test_a_workdir_that_cannot_be_is_one_sentence(gcs, capsys, monkeypatch, workdir, says):
    gcs.put("bucket", "foreign/checkpoints/3/state/x", b"")
    monkeypatch.setattr(gcs, "refused", re.compile("closed/"))
    before = gcs.names("bucket")
    argv = [f"--config={ROOT}/tests/tiny_config.py", f"--workdir={workdir}", "--devices=1", "--distributed=off"]
    assert run_verb(main.main, argv) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {says}") and said.count("\n") == 1, said
    assert gcs.names("bucket") == before


@pytest.mark.slow
def test_a_run_in_a_bucket_equals_a_local_one(gcs, tmp_path):
    """Images and workdir in the bucket, SIGTERM on the way, then the same command: the losses and the model of a run that
    has everything on this machine."""
    generator = np.random.default_rng(0)
    for role in ("clean", "photos"):
        (tmp_path / role).mkdir()
        for k in range(20):
            stream = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (70, 100, 3), dtype=np.uint8)).resize((100, 70)).save(
                stream, "PNG"
            )
            data = b"text" if (role, k) == ("photos", 13) else stream.getvalue()
            (tmp_path / role / f"{k}.png").write_bytes(data)
            gcs.put("bucket", f"{role}/{k}.png", data)

    def start(workdir: str, place: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "contrique_jax.main", f"--config={ROOT}/tests/tiny_config.py", "--devices=1"]
        command += [
            f"--workdir={workdir}",
            f"--config.data.pristine={place}/clean",
            f"--config.data.authentic={place}/photos",
        ]
        command += ["--config.train.steps=30"]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | ONE_DEVICE, stderr=subprocess.PIPE, text=True)

    local = start(str(tmp_path / "run"), str(tmp_path))
    assert "1 broken image was skipped" in local.communicate(timeout=300)[1]

    stopped = start("gs://bucket/run", "gs://bucket")
    while stopped.poll() is None and not gcs.names("bucket", "run/checkpoints/5/"):
        time.sleep(0.02)
    assert gcs.names("bucket", "run/config.json")  # before the first checkpoint
    stopped.send_signal(signal.SIGTERM)
    said = stopped.communicate(timeout=300)[1]
    assert stopped.returncode == 0 and "stopped and saved at step" in said, said
    assert "gs://bucket/photos/13.png: not an image" in said
    resumed = start("gs://bucket/run", "gs://bucket")
    said = resumed.communicate(timeout=300)[1]
    assert resumed.returncode == 0, said
    assert "resuming resnet10 in gs://bucket/run" in said and "done: gs://bucket/run/model" in said

    def losses(text: str) -> list[tuple[int, float]]:
        return [(row["step"], row["loss"]) for row in map(json.loads, text.splitlines())]

    ours, theirs = (gcs.get("bucket", "run/metrics.jsonl").decode(), (tmp_path / "run" / "metrics.jsonl").read_text())
    assert losses(ours) == losses(theirs) and len(losses(ours)) == 30
    assert_equal(load_network("gs://bucket/run")[1], load_model(tmp_path / "run" / "model")[1])
    assert gcs.get("bucket", "run/broken_images.txt").decode().startswith("gs://bucket/photos/13.png: not an image")
    tops = {name.split("/")[1] for name in gcs.names("bucket", "run/")}
    assert tops == {path.name for path in (tmp_path / "run").iterdir()}
