"""Training checkpoints through Orbax: asynchronous, atomic, with the step and the config inside.

A checkpoint holds plain nested dicts of arrays, so that a new release of Flax or Optax cannot break it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp

from contrique_jax.config import Config, ModelConfig, to_json
from contrique_jax.errors import UserError
from contrique_jax.io import buckets
from contrique_jax.networks.description import stored_architecture
from contrique_jax.networks.encoder import variable_shapes
from contrique_jax.training import hosts
from contrique_jax.training.disk_space import full_disk_as_user_error, no_space

if TYPE_CHECKING:
    from etils import epath

ALONE_SECONDS = 100 * 365 * 86400  # a process alone waits for nobody
UNWRITTEN = "a checkpoint could not be written, the earlier ones are untouched: "


def _measure_waits_steadily() -> None:
    """Orbax measures how long it waits by the wall clock, which may jump; from here on by one that cannot."""
    steady = SimpleNamespace(**vars(time) | {"time": time.monotonic})
    for name, module in list(sys.modules.items()):
        if name.startswith("orbax.checkpoint.") and getattr(module, "time", None) is time:
            module.time = steady  # type: ignore[attr-defined]


_measure_waits_steadily()


class DamagedCheckpoint(UserError):
    """One that is there and cannot be read."""


class Checkpoints:
    """The checkpoints of a run, in one folder, local or in a bucket; the last `keep` stay."""

    def __init__(self, folder: Path | epath.Path, keep: int = 2, *, owner: bool = True, wait_seconds: int = 600):
        """`owner`: this run writes here, and clears away what an interrupted one left half-written. `wait_seconds`: how
        long processes wait for each other at a save. Raises UserError if a bucket cannot be reached."""
        self.folder = folder if buckets.is_address(folder) else folder.absolute()
        self._wait_seconds = wait_seconds
        # errors of its threads come back as exceptions, which become one sentence; it would also print each with its trace
        for name in ("absl", "asyncio", "concurrent.futures"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        sys.unraisablehook = _without_closed_loops
        with self._failures():
            self._manager = ocp.CheckpointManager(
                self.folder,
                item_handlers={"state": ocp.StandardCheckpointHandler(), "config": ocp.JsonCheckpointHandler()},
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep if owner else None,
                    create=owner,
                    enable_async_checkpointing=True,
                    async_options=ocp.options.AsyncOptions(
                        timeout_secs=wait_seconds if hosts.is_distributed() else ALONE_SECONDS
                    ),
                    cleanup_tmp_directories=owner,
                ),
            )

    def _failures(self, what: str = "") -> AbstractContextManager[None]:
        """Context: what goes wrong with the storage -> UserError."""
        if buckets.is_address(self.folder):
            return buckets.one_sentence(str(self.folder), what)
        return full_disk_as_user_error(self.folder)

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; half-written ones do not count."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, config: Config) -> None:
        """Starts writing `state` (any pytree of arrays) as of `step`; it appears whole or not at all.

        Raises UserError if the disk is full or the bucket refuses it; earlier checkpoints stay.
        """
        tree = flax.serialization.to_state_dict(state)
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        here = hosts.is_first() and isinstance(self.folder, Path)
        fault = no_space(Path(self.folder), round(1.1 * needed)) if here else None
        hosts.agree(f"the checkpoint of step {step}", fault, self._wait_seconds)
        with self._failures(UNWRITTEN):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree), config=ocp.args.JsonSave(json.loads(to_json(config)))
                ),
            )

    def config(self, step: int) -> dict[str, Any]:
        """The config a checkpoint was written under, as plain values."""
        return dict(self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"])

    def restore(self, step: int, like: Any) -> Any:
        """The state of `step`, shaped, typed and placed as the leaves of `like`.

        Raises UserError if the checkpoint is of another architecture, naming arrays that do not fit, and DamagedCheckpoint
        if it is cut off or otherwise unreadable.
        """
        wanted = flax.serialization.to_state_dict(like)
        with self._failures():
            try:
                self.check_fits(step, wanted)
                restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted)))
            except UserError:
                raise
            except Exception as error:  # Orbax, TensorStore and json have many kinds for it
                if buckets.is_address(self.folder):
                    raise
                why = " ".join(str(error).split())[:120] or type(error).__name__
                raise DamagedCheckpoint(f"{self.folder / str(step)}: a damaged checkpoint ({why})") from error
        return flax.serialization.from_state_dict(like, restored["state"])

    def restore_newest(self, like: Any) -> tuple[int, Any]:
        """Step and state of the newest checkpoint that can be read, as `restore`; 0 and `like` if there is none at all.

        Damaged ones are named on stderr and moved beside the folder. Raises UserError if all are damaged.
        """
        step = self.latest() or 0
        hosts.agree("the newest checkpoint", None, self._wait_seconds, same={"newest checkpoint": str(step)})
        while step:
            fault = None
            try:
                state = self.restore(step, like)
            except DamagedCheckpoint as error:
                fault = error
            found = {f"checkpoint of step {step}": "a damaged one" if fault else "a whole one"}
            hosts.agree(f"the state of step {step}", None, self._wait_seconds, same=found)
            if fault is None:
                return step, state
            step = self._before(step, fault)
        return 0, like

    def _before(self, step: int, fault: DamagedCheckpoint) -> int:
        """The step of the checkpoint before a damaged one, which is moved away. Raises UserError if there is none."""
        earlier = max((each for each in self._manager.all_steps() if each < step), default=0)
        if not earlier:
            raise UserError(
                f"{fault}, and there is none before it; move it away to start anew, or take another --workdir."
            )
        aside = Path(self.folder).parent / f"damaged_checkpoint_{step}"
        if hosts.is_first():
            while aside.exists():
                aside = aside.with_name(f"{aside.name}_")
            (Path(self.folder) / str(step)).rename(aside)
            print(f"warning: {fault}; it is now {aside}, and step {earlier} is taken", file=sys.stderr)
        hosts.barrier(f"the damaged step {step}", self._wait_seconds)
        self._manager.reload()
        return earlier

    def check_fits(self, step: int, wanted: Any, only: Sequence[str] = ()) -> None:
        """Raises UserError naming arrays on one side only, or of another shape; of the parts `only` if some are named."""
        tree = self._manager.item_metadata(step)["state"].tree
        stored = shapes({name: tree[name] for name in only} if only else tree)
        ours = shapes(wanted)
        wrong = sorted(name for name in ours.keys() & stored.keys() if ours[name] != stored[name])
        missing, extra = sorted(ours.keys() - stored.keys()), sorted(stored.keys() - ours.keys())
        if wrong or missing or extra:
            examples = [f"{name} is {stored[name]} there and {ours[name]} here" for name in wrong[:2]]
            examples += [f"{name} is missing there" for name in missing[:2]]
            examples += [f"{name} is not known here" for name in extra[:2]]
            raise UserError(
                f"{self.folder / str(step)}: a checkpoint of another architecture ({'; '.join(examples)}); "
                "use the config it was trained with or another --workdir."
            )

    def restore_plain(self, step: int, names: Sequence[str]) -> Any:
        """Those parts of the state of `step` as nested dicts of host arrays, whatever its architecture; no other is read."""
        metadata = self._manager.item_metadata(step)["state"].tree
        host = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=host),
            {name: metadata[name] for name in names},
        )
        args = ocp.args.PyTreeRestore(
            item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
        )
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            return jax.device_get(reader.restore(self.folder / str(step) / "state", args=args))

    def wait(self) -> None:
        """Returns once everything saved is written. Raises UserError if the disk is full or the bucket refuses it."""
        with self._failures(UNWRITTEN):
            self._manager.wait_until_finished()

    def close(self) -> None:
        with self._failures(UNWRITTEN):
            self._manager.close()


def _without_closed_loops(lost: sys.UnraisableHookArgs) -> None:
    """If one array of a checkpoint cannot be written, TensorStore prints of each other one that nobody waits for it."""
    if not (lost.exc_type is RuntimeError and str(lost.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(lost)


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Dotted name -> shape of every array in a nested dict."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(str(part.key) for part in path): tuple(leaf.shape) for path, leaf in leaves}


def load_for_inference(path: str | Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The network in a workdir, its `checkpoints` folder or one checkpoint -> (architecture, variables on the host).

    `path` may be an address in a bucket. Says on stderr which step that is: the run has no finished model.
    """
    if buckets.is_address(path):
        with buckets.one_sentence(str(path)):
            return _load_for_inference(buckets.orbax_path(str(path)))
    return _load_for_inference(Path(path).absolute())


def _load_for_inference(path: Path | epath.Path) -> tuple[ModelConfig, dict[str, Any]]:
    folder: Path | epath.Path
    if path.name.isdigit() and (path / "state").is_dir():
        folder, steps = path.parent, [int(path.name)]
    else:
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        steps = [int(child.parent.name) for child in folder.glob("*/state") if child.parent.name.isdigit()]
    if not steps:
        raise UserError(f"{path}: neither a model folder nor a run's workdir with a checkpoint in it; check the name.")
    checkpoints = Checkpoints(folder, owner=False)
    try:
        record = checkpoints.config(max(steps))
        if (found := record.get("recipe", Config.recipe)) != Config.recipe:
            raise UserError(f"{folder}: a run of the recipe {found!r}; name one of {Config.recipe!r}.")
        known = {part.name for part in dataclasses.fields(ModelConfig)}
        stored = {name: value for name, value in record["model"].items() if name in known}
        model = stored_architecture(stored, ModelConfig, Path(str(folder / str(max(steps)))))
        checkpoints.check_fits(max(steps), variable_shapes(model), only=("params", "batch_stats"))
        state = checkpoints.restore_plain(max(steps), ("params", "batch_stats"))
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore meet damage in nearly any way
        raise UserError(f"{folder / str(max(steps))}: a damaged checkpoint; take another one.") from error
    finally:
        checkpoints.close()
    print(f"{folder}: no finished model; this is the checkpoint of step {max(steps)}", file=sys.stderr)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves([state["params"], state["batch_stats"]])):
        raise UserError(f"{folder / str(max(steps))}: NaN or infinity among the weights; take an earlier checkpoint.")
    return model, {"params": state["params"], "batch_stats": state["batch_stats"]}
