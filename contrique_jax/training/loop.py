"""The loop around the step: resume, metrics, checkpoints, an early end."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

import jax

from contrique_jax.config import Config
from contrique_jax.data.awaited import awaited
from contrique_jax.data.order import steps_per_epoch
from contrique_jax.data.pipeline import Pipeline, Tree
from contrique_jax.errors import UserError
from contrique_jax.networks.model_folder import save_model
from contrique_jax.recipes import recipe_of
from contrique_jax.recipes.recipe import Variables
from contrique_jax.training import hosts
from contrique_jax.training.checkpoint import Checkpoints
from contrique_jax.training.mesh import Runtime
from contrique_jax.training.metrics import Metrics
from contrique_jax.training.step import Measures, TrainState, init_state, make_step
from contrique_jax.training.warm_start import starting_weights
from contrique_jax.training.watch import Watchdog
from contrique_jax.training.workdir import Workdir


class Diverged(hosts.SharedError):
    """The loss is no number any more."""


def total_steps(config: Config, counts: Mapping[str, int]) -> int:
    """Steps of the whole run: `train.steps`, or `train.epochs` epochs of the shortest source; `counts`: images by role."""
    return config.train.steps or config.train.epochs * steps_per_epoch(counts, config.data.batch_size)


@contextmanager
def out_of_memory_said(config: Config) -> Iterator[None]:
    """Context: a device's memory that runs out -> UserError naming the fields that need less of it."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"config.data.batch_size = {config.data.batch_size}: a step does not fit the memory of this "
            f"{jax.devices()[0].device_kind}; {'' if config.train.remat else 'set config.train.remat = True, or '}"
            f"with a new --workdir lower it or raise config.train.accumulation, now {config.train.accumulation}."
        ) from error


def until_fault(batches: Iterator[Tree], faults: list[UserError]) -> Iterator[Tree]:
    """`batches` until a source as a whole cannot be read, which goes to `faults`: what is done is saved first."""
    try:
        yield from batches
    except UserError as error:
        faults.append(error)


def is_finite(row: dict[str, float]) -> bool:
    return math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])


def check_finite(rows: list[dict[str, float]], saved: int | None) -> None:
    """Raises Diverged naming the steps whose loss or gradient is not finite."""
    bad = [int(row["step"]) for row in rows if not is_finite(row)]
    if bad:
        steps = f"step {bad[0]}" if len(bad) == 1 else f"steps {bad[0]} to {bad[-1]}"
        last = f"the last checkpoint is of step {saved}" if saved else "there is no checkpoint yet"
        raise Diverged(
            f"loss or gradient is not a finite number at {steps}; {last}; "
            "take a lower config.optim.learning_rate and a new --workdir, or look at the images of those steps."
        )


def train(
    config: Config,
    workdir: Path | Workdir,
    runtime: Runtime,
    pipeline: Pipeline,
    watch: Watchdog | None = None,
    start: Variables | None = None,
) -> TrainState:
    """Trains from the newest checkpoint of `workdir`, or from the start, to the last step, and writes `workdir/model`.

    `watch` is told what to expect next; it serves if there are several processes. `start`: `starting_weights(config)` if
    they are at hand; a resumed run needs none. Raises UserError (Diverged) if the
    loss stops being a number, or if a checkpoint does not fit or be written.
    """
    steps, often = total_steps(config, pipeline.counts), config.train
    run = workdir if isinstance(workdir, Workdir) else Workdir(workdir)
    watch = watch or Watchdog(often.wait_seconds)
    with closing(Checkpoints(run.checkpoints, often.keep_checkpoints, wait_seconds=often.wait_seconds)) as checkpoints:
        watch.expect("the start from the newest checkpoint")
        variables = None if checkpoints.latest() else start or starting_weights(config)
        first, state = checkpoints.restore_newest(runtime.replicate(init_state(config, steps, variables)))
        watch.pause()  # before the first step something is compiled
        with _metrics(run.folder, first, steps, config) as metrics, hosts.StopOnTerminate() as stop:
            waiting: list[tuple[int, Measures]] = []
            saved, done = first or None, first
            run_step = make_step(config, runtime, steps)

            def report() -> None:
                """Writes down what was measured since the last time, in one transfer from the devices."""
                if not waiting:
                    return
                rows = [{"step": number, **jax.tree.map(float, values)} for number, values in waiting]
                rows[-1]["broken_images"] = hosts.total(pipeline.broken.count)
                waiting.clear()
                if metrics:
                    metrics.write([row for row in rows if is_finite(row)])
                check_finite(rows, saved)

            def save() -> None:
                watch.expect(f"the checkpoint of step {done}")
                run.publish()  # before the checkpoint, so that no resumed run lacks lines up to it
                checkpoints.save(done, state, config)

            faults: list[UserError] = []
            batches = until_fault(awaited(pipeline.batches(first, steps), stop.asked_now), faults)
            for done, batch in enumerate(map(runtime.place, batches), first + 1):
                if done == first + 1:
                    compiled = run_step.lower(state, batch).compile()
                    hosts.barrier(
                        "the first step", often.wait_seconds
                    )  # one may compile where another finds it compiled
                watch.expect(f"step {done}")
                state, measures = compiled(state, batch)
                if waiting and hosts.is_distributed():
                    jax.block_until_ready(waiting[-1])  # the watch is to see the end of each step
                waiting.append((done, measures))
                leave = stop.asked(done) or done == steps
                due = leave or done % often.checkpoint_every == 0
                if due or done % often.log_every == 0 or done == first + 1:
                    report()
                if due:
                    save()
                    saved = done
                if leave:
                    break
            alone = not hosts.is_distributed()  # others do not know of a fault here
            if done > (saved or 0) and (alone or not faults):  # a signal or a fault came, a batch did not
                report()
                save()
            watch.expect("the last checkpoint")
            checkpoints.wait()
            if faults:
                raise faults[0]
        watch.expect("the list of broken images")
        run.publish(required=True)
        hosts.barrier("the end", often.wait_seconds)
        watch.expect("the model")
        if int(state.step) >= steps and hosts.is_first() and not run.has_model():
            _save_model(config, run, state, steps)
            run.publish(required=True)
    return state


def _metrics(workdir: Path, first: int, steps: int, config: Config) -> AbstractContextManager[Metrics | None]:
    """The one process that writes them has them."""
    if not hosts.is_first():
        return nullcontext()
    return closing(Metrics(workdir, first=first, last=steps, images_per_step=config.data.batch_size))


def _save_model(config: Config, run: Workdir, state: TrainState, steps: int) -> None:
    model, variables = recipe_of(config).finished(config, *jax.device_get((state.variables, state.constants)))
    provenance: dict[str, object] = {"steps": steps, "seed": config.train.seed}
    provenance |= {role: getattr(config.data, role) for role in recipe_of(config).roles}
    provenance |= {"broken_images": len(run.broken_images())}
    provenance |= {"init_from": config.train.init_from} if config.train.init_from else {}
    save_model(run.folder / "model", model, variables, provenance=provenance, recipe=config.recipe)


if __name__ == "__main__":
    print("error: a training is started by `python -m contrique_jax.main`, or `contrique-jax train`.", file=sys.stderr)
    sys.exit(2)
