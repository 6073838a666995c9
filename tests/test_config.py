"""The config: what is refused, in which words; what the command line may change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contrique_jax.config import Config, DataConfig, first_difference, to_json
from contrique_jax.errors import UserError
from contrique_jax.training.flags import parse_flags
from contrique_jax.training.run import claim_workdir, prepare

CONFIG = str(Path(__file__).parents[1] / "configs" / "contrique_resnet50.py")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.batch_size", 7), ("data.height", 100), ("data.view_size", 0), ("data.pristine_share", 1.5),
        ("data.type_weights", (1.0, 2.0)), ("data.type_weights", (0.0,) * 25),
        ("data.type_weights", ("a",) * 25), ("data.loader", "magic"), ("data.augment_on", "moon"),
        ("data.cache_gigabytes", -1.0), ("data.cache_gigabytes", float("inf")), ("optim.gradient_scale", 0.0),
        ("model.encoder", "vgg"), ("model.patches", 20), ("model.compute_dtype", "float16"), ("loss.temperature", 0.0),
        ("optim.momentum", 1.0), ("optim.decay_mask", "some"), ("optim.warmup_share", 1.0), ("train.epochs", 0),
        ("optim.weight_decay", float("inf")), ("optim.gradient_scale", float("inf")), ("model.base_width", 10**12),
        ("train.steps", 10**20), ("data.workers", 10**6), ("train.seed", -1),
        ("train.log_every", 0), ("train.accumulation", 0), ("train.accumulation", 3),
    ],
)  # fmt: skip
def test_a_field_out_of_range_is_named(field, value):
    config = Config()
    part, name = field.split(".")
    setattr(getattr(config, part), name, value)
    with pytest.raises(UserError, match=f"config.{field} = "):
        config.validate()


def test_the_defaults_are_valid():
    Config().validate()


@pytest.mark.parametrize("variant", ["", ":small"])
def test_config_file_loads_with_changes(variant):
    argv = [
        f"--config={CONFIG}{variant}",
        "--workdir=w",
        "--config.data.batch_size=64",
        "--config.optim.learning_rate=0.1",
    ]
    flags = parse_flags(argv)
    assert (flags.config.data.batch_size, flags.config.optim.learning_rate) == (64, 0.1)
    assert (flags.workdir, flags.devices, flags.distributed) == (Path("w"), 0, "auto")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--workdir=w"], "--config is missing"),
        ([f"--config={CONFIG}"], "--workdir is missing"),
        (
            [f"--config={CONFIG}", "--workdir=w", "--config.data.batchsize=8"],
            "the nearest name is config.data.batch_size",
        ),
        ([f"--config={CONFIG}", "--workdir=w", "--config.optims=8"], "config has no field 'optims'.*config.optim;"),
        (
            [f"--config={CONFIG}", "--workdir=w", "--config.los.temperature=1"],
            "config has no field 'los'.*config.loss;",
        ),
        ([f"--config={CONFIG}", "--workdir=w", "--config.loss.temperature=inf"], "loss.temperature = inf"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.optim.learning_rate=inf"], "optim.learning_rate = inf"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.data.batch_size=many"], "many"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.data.batch_size=3"], "config.data.batch_size = 3"),
        ([f"--config={CONFIG}:huge", "--workdir=w"], "huge"),
        (["--config=nowhere.py", "--workdir=w"], "nowhere.py"),
        ([f"--config={CONFIG}", "--workdir="], "--workdir is missing"),
        (
            ["--config=zeng_kwong.py", "--workdir=w", "--config.model.depth=99999"],
            "model.depth = 99999: must be between",
        ),
        (["--config=conformer.py", "--workdir=w", "--config.model.kernel=-1"], "model.kernel = -1"),
        (["--config=ahiq.py", "--workdir=w", "--config.model.vit_side=0"], "model.vit_side = 0"),
        ([f"--config={CONFIG}", "--workdir=w", "extra"], "extra"),
        ([f"--config={CONFIG}", "--wrkdir=w"], "wrkdir"),
        ([f"--config={CONFIG}", "--workdir=s3://bucket/run"], "only gs://BUCKET/PATH is understood"),
        *[
            ([f"--config={CONFIG}", f"--workdir=gs://{name}"], "no address in a bucket")
            for name in ("", "b", "B_d/x", "bucket//x", "bucket/../x")
        ],
    ],
)
def test_a_wrong_command_line_is_one_sentence(argv, says):
    with pytest.raises(UserError, match=says) as caught:
        parse_flags(argv)
    assert "\n" not in str(caught.value)


def test_a_workdir_belongs_to_one_config(tmp_path):
    config = Config()
    images = {"pristine": 30, "authentic": 40}
    assert claim_workdir(tmp_path / "run", config, images) is False
    assert claim_workdir(tmp_path / "run", config, images) is True
    config.train.checkpoint_every = 7  # says what is written when: may change
    assert claim_workdir(tmp_path / "run", config, images) is True
    config.optim.learning_rate = 0.123
    before = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(UserError, match=r"optim\.learning_rate is 0\.123 here and 0\.6 there"):
        claim_workdir(tmp_path / "run", config, images)
    config.optim.learning_rate = 0.6
    with pytest.raises(UserError, match=r"images\.authentic is 41 here and 40 there"):
        claim_workdir(tmp_path / "run", config, {"pristine": 30, "authentic": 41})
    assert (tmp_path / "run" / "config.json").read_text() == before
    assert (
        claim_workdir(tmp_path / "run", config, images, opinions={"rated": "a"}) is True
    )  # one from before they were kept
    assert claim_workdir(tmp_path / "rated", config, images, opinions={"rated": "a"}) is False
    with pytest.raises(UserError, match=r"opinions\.rated is 'b' here and 'a' there"):
        claim_workdir(tmp_path / "rated", config, images, opinions={"rated": "b"})


def test_a_config_file_that_fails_is_named(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(UserError, match=r"--config: .*bad\.py cannot be loaded: division by zero"):
        parse_flags([f"--config={tmp_path / 'bad.py'}", "--workdir=w"])


def test_a_network_that_does_not_fit_memory_is_said_before_it_is_made(tmp_path):
    config = Config()
    config.model.base_width, config.data.pristine, config.data.authentic = 1 << 19, "scenes:600", "scenes:600"
    with pytest.raises(UserError, match=r"config\.model: 3 times its weights, which a step needs, are \d+ GB"):
        prepare(config, tmp_path, 1)


def test_a_batch_beyond_the_machines_memory_is_refused_before_it_is_made(tmp_path):
    config = Config(data=DataConfig("scenes:24", "scenes:24", batch_size=8, view_size=320_000))
    with pytest.raises(UserError, match=r"batch_size = 8: the images of one batch need 2458 GB"):
        prepare(config, tmp_path, 1)


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError, match="--workdir"):
        claim_workdir(tmp_path / "taken", Config(), {})
    assert (tmp_path / "taken").read_text() == "mine"


def test_difference_sees_fields_of_other_versions():
    ours, stored = json.loads(to_json(Config())), json.loads(to_json(Config()))
    assert first_difference(ours, stored) is None
    del stored["data"]  # as if all its fields, a tuple among them, had come later
    assert first_difference(ours, stored) is None
    stored["data"] = {"gone": 1}
    assert "data.gone" in str(first_difference(ours, stored))


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", '{"data": 3}', "not json", '{"recipe": {}}', '{"data": {"seed": NaN}}', "[" * 9999]
)
def test_a_damaged_config_of_a_run_is_one_sentence(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: not a run's config"):
        claim_workdir(tmp_path, Config(), {})


@pytest.mark.parametrize("text", ["def get_config(:", "import no_such_module", "def get_config(): return 3"])
def test_a_config_file_with_a_mistake_is_one_sentence(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError) as caught:
        parse_flags([f"--config={tmp_path / 'mine.py'}", "--workdir=w"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("variant", "scale"), [("", 1.0), (":4", 0.25)])
def test_the_original_preset(variant, scale):
    path = CONFIG.replace("contrique_resnet50.py", "original.py")
    config, *_ = parse_flags([f"--config={path}{variant}", "--workdir=w"])
    assert config.optim.decay_mask == "original" and config.optim.gradient_scale == scale
    assert config.train.steps == 58_575


def test_a_config_from_before_a_field_existed_had_its_default():
    ours, stored = json.loads(to_json(Config())), json.loads(to_json(Config()))
    del stored["model"]["input_scaling"]
    assert first_difference(ours, stored) is None
    ours["model"]["input_scaling"] = "imagenet"
    assert "model.input_scaling" in str(first_difference(ours, stored))


def test_one_folder_written_two_ways_is_one_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, there = Config(), Config()
    here.data.pristine, there.data.pristine = "photos/clean/", f"{tmp_path}/photos/clean"
    assert first_difference(json.loads(to_json(here)), json.loads(to_json(there))) is None
    there.data.pristine = f"{tmp_path}/photos/other"
    assert "data.pristine" in first_difference(json.loads(to_json(here)), json.loads(to_json(there)))
