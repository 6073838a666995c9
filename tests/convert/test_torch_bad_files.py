"""PyTorch files that do not fit, are no checkpoint or would run code: a listing or one sentence, and nothing written."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile

import pytest

from contrique_jax.convert import from_torch
from tests.convert.subverbs import run

torch = pytest.importorskip("torch")

from tests.convert.torch_files import BASE, saved  # noqa: E402
from tests.torch_resnet import Original  # noqa: E402

pytestmark = pytest.mark.torch


def test_both_sides_of_a_mismatch_are_listed(original, tmp_path, capsys):
    state = dict(original.state_dict())
    state["encoder.1.weight"] = torch.zeros(BASE + 1)
    state["encoder.4.0.conv1.bias"] = torch.zeros(BASE)
    del state["encoder.7.1.bn2.running_var"]
    run(from_torch, saved(tmp_path / "in.tar", state), tmp_path / "model", code=2)
    *lines, sentence = capsys.readouterr().err.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["encoder.1.weight", "float32[9]", "float32[8]"],
        ["encoder.4.0.conv1.bias", "float32[8]", "-"],
        ["encoder.layer4.1.bn2.running_var", "-", "float32[64]"],
    ]
    assert "in.tar: 3 arrays do not fit a resnet18" in sentence and not (tmp_path / "model").exists()


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_file_that_would_run_code_is_refused_and_not_run(original, tmp_path, capsys):
    mark = tmp_path / "ran"
    saved(tmp_path / "a.pth", {"state_dict": original.state_dict(), "epoch": Evil(mark)})
    torch.save({"x": Evil(mark)}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Evil(mark), protocol=2))
    saved(tmp_path / "d.pth", original)  # a whole model names its classes
    for name, named in (("a", "system"), ("b", "system"), ("c", ""), ("d", "Original")):
        run(from_torch, tmp_path / f"{name}.pth", tmp_path / "model", code=2)
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and named in said and (not named or "refused and not run" in said)
    assert not mark.exists() and not (tmp_path / "model").exists()


def test_files_that_are_no_checkpoint(original, tmp_path, capsys):
    whole = saved(tmp_path / "whole.pth", original.state_dict()).read_bytes()
    torch.save(original.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pth").read_bytes()
    broken = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    broken["encoder.0.weight"][0, 0, 0, 0] = float("nan")
    saved(tmp_path / "nan.pth", broken)
    saved(tmp_path / "list.pth", [torch.zeros(1)])
    saved(tmp_path / "other.pth", {"features.0.weight": torch.zeros(1)})
    quantised = {"conv1.weight": torch.quantize_per_tensor(torch.zeros(8, 3, 7, 7), 0.1, 0, torch.qint8)}
    saved(tmp_path / "quantised.pth", quantised)
    negative = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    negative["encoder.1.running_var"][0] = -1
    saved(tmp_path / "negative.pth", negative)
    saved(tmp_path / "nothing.pth", {})
    saved(tmp_path / "endless.pth", {"conv1.weight": torch.zeros(1).expand(10**12)})
    middle = len(whole) // 2
    (tmp_path / "damaged.pth").write_bytes(whole[:middle] + bytes(400) + whole[middle + 400 :])
    saved(tmp_path / "count.pth", original.state_dict() | {"encoder.1.num_batches_tracked": torch.tensor(float("nan"))})
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pth"))
    parts = {"cut": whole[: len(whole) // 2], "oldcut": old[: len(old) // 2], "empty": b"", "text": b"hello"}
    for name, data in parts.items():
        (tmp_path / f"{name}.pth").write_bytes(data)
    for name, says in (
        ("cut", "cut off"), ("oldcut", "cut off"), ("empty", "cut off"), ("text", "cut off"), ("absent", "no such file"),
        ("nan", "NaN or infinity in encoder.0.weight"), ("list", "holds a list"), ("other", "no network by the names of"),
        ("quantised", "conv1.weight is no plain tensor"), ("script", "TorchScript"), ("count", "bn1.num_batches_tracked"),
        ("negative", "encoder.1.running_var holds a negative variance"), ("nothing", "an empty state dict"),
            ("endless", "its tensors promise more than the file holds"),
        ("damaged", "check sum"),
    ):  # fmt: skip
        run(from_torch, tmp_path / f"{name}.pth", tmp_path / "model", code=2)
        said = capsys.readouterr().err
        assert says in said and f"{name}.pth" in said and said.count("\n") == 1, said
    assert not list(tmp_path.glob("model*")) and not list(tmp_path.glob(".*"))


def test_a_key_whose_hash_never_ends_is_refused(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data.pkl", b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s.")
    (tmp_path / "old.pth").write_bytes(
        b"\x80\x02})" + b"q\x00(" + b"h\x00" * 50 + b"tq\x00(" + b"h\x00" * 5000 + b"tK\x01s."
    )
    for name in ("zip.pth", "old.pth"):
        run(from_torch, tmp_path / name, tmp_path / "model", code=2)
        assert "tuples in tuples without end" in capsys.readouterr().err


@pytest.mark.parametrize("part, arrays", [("encoder.6.1.", 10), ("projector.1.", 4), ("projector.3.", 1)])
def test_what_is_missing_is_listed_by_name(original, tmp_path, capsys, part, arrays):
    state = {name: tensor for name, tensor in original.state_dict().items() if not name.startswith(part)}
    run(from_torch, saved(tmp_path / "part.pth", state), tmp_path / "model", code=2)
    *listing, sentence = capsys.readouterr().err.splitlines()
    assert len(listing) == 1 + arrays and all(" -  " in line for line in listing[1:])
    assert f"part.pth: {arrays} arrays do not fit a resnet18" in sentence
    assert not (tmp_path / "model").exists()


def test_one_block_too_many_is_listed_by_the_names_of_the_file(original, tmp_path, capsys):
    state = original.state_dict()
    more = {name.replace("6.1.", "6.2."): tensor for name, tensor in state.items() if name.startswith("encoder.6.1.")}
    run(from_torch, saved(tmp_path / "more.pth", state | more), tmp_path / "model", code=2)
    said = capsys.readouterr().err
    assert "encoder.6.2.conv1.weight" in said and "10 arrays do not fit a resnet18" in said


def test_the_model_of_a_run_is_left_alone(original, tmp_path, capsys):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for out in (tmp_path / "run", tmp_path / "run" / "model"):
        run(from_torch, saved(tmp_path / "whole.pth", original.state_dict()), out, code=2)
        assert "belongs to a training run" in capsys.readouterr().err
    assert [place.name for place in (tmp_path / "run").iterdir()] == ["checkpoints"]


def test_another_model_is_not_written_over(original, tmp_path, capsys):
    other = Original("resnet18", BASE, 16).state_dict()
    for name, state in (("one", original.state_dict()), ("two", other)):
        saved(tmp_path / f"{name}.pth", state)
    for _ in range(2):
        run(from_torch, tmp_path / "one.pth", tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    run(from_torch, tmp_path / "two.pth", tmp_path / "model", code=2)
    assert "holds another model" in capsys.readouterr().err
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


class Crafted:
    """Becomes an OrderedDict with attributes in the place of its methods."""

    def __reduce__(self):
        return collections.OrderedDict, (), {"items": 3, "keys": 3}, None, iter([("fc.weight", torch.zeros(2))])


def test_attributes_in_the_place_of_an_ordered_dicts_methods_are_not_called(tmp_path, capsys):
    for stored in (Crafted(), {"model": Crafted()}, {"deform_net_model_state_dict": Crafted()}):
        run(from_torch, saved(tmp_path / "in.pth", stored), tmp_path / "model", code=2)
        said = capsys.readouterr().err
        assert "no network by the names of" in said and said.count("\n") == 1
