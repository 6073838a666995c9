"""TrainState, one pure step, and the loop around it."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt8

from contrique_jax.augment import batches
from contrique_jax.config import Config, check_accumulation
from contrique_jax.data.order import steps_per_epoch, type_table
from contrique_jax.data.pipeline import Batch, Pipeline
from contrique_jax.distort.bank import NUM_CLASSES
from contrique_jax.errors import UserError
from contrique_jax.losses.nt_xent import sharded_nt_xent
from contrique_jax.networks.encoder import Variables, init_model, project
from contrique_jax.networks.model_folder import save_model
from contrique_jax.training import hosts, optim
from contrique_jax.training.accumulation import value_and_gradient
from contrique_jax.training.checkpoint import Checkpoints
from contrique_jax.training.mesh import DATA_AXIS, Runtime
from contrique_jax.training.metrics import Metrics
from contrique_jax.training.warm_start import starting_weights
from contrique_jax.training.watch import Watchdog
from contrique_jax.training.workdir import Workdir

Measures = dict[str, Float[Array, ""]]


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Int[Array, ""]  # steps done
    params: Any  # nested dict of float32 arrays
    batch_stats: Any  # nested dict of float32 arrays
    opt_state: Any


class Diverged(hosts.SharedError):
    """The loss is no number any more."""


def total_steps(config: Config, pristine: int, authentic: int) -> int:
    """Steps of the whole run: `train.steps`, or `train.epochs` epochs of the shorter source."""
    return config.train.steps or config.train.epochs * steps_per_epoch(pristine, authentic, config.data.batch_size)


def init_state(config: Config, steps: int, variables: Variables | None = None) -> TrainState:
    """The state before the first step, on the host: with these weights, or with those that the seed draws."""
    variables = variables or init_model(config.model, config.train.seed)
    optimiser = optim.sgd(config.optim, steps)
    return TrainState(
        jnp.zeros((), jnp.int32), variables["params"], variables["batch_stats"], optimiser.init(variables["params"])
    )


def make_augment(
    config: Config, runtime: Runtime
) -> Callable[[batches.Rows], tuple[UInt8[Array, "batch 2 size size 3"], Int[Array, " batch"]]]:
    """Rows as decoded -> views and classes: each device finishes its own rows."""
    types, _ = type_table(config.data.type_weights)
    finish = functools.partial(batches.batch_of, size=config.data.view_size, types=types, minmax=config.data.minmax)
    split = runtime.batch_sharded.spec
    return jax.shard_map(finish, mesh=runtime.mesh, in_specs=split, out_specs=split, check_vma=False)


def make_step(config: Config, runtime: Runtime, steps: int) -> jax.stages.Wrapped:
    """The jitted step over the mesh: (TrainState, Batch | batches.Rows) -> (TrainState, Measures). The state is donated.

    The loss and its gradient are the global batch's, whatever the number of devices and of micro-batches
    (`train.accumulation`). BatchNorm sees a micro-batch, of all devices, one view at a time with `model.norm_per_view`.
    Raises UserError where the devices' rows do not fall into that many micro-batches.
    """
    check_accumulation(config.train.accumulation, config.data.batch_size, runtime.devices)
    optimiser = optim.sgd(config.optim, steps)
    num_classes = NUM_CLASSES + config.data.batch_size // 2

    def loss_of(z: Array, classes: Array) -> Float[Array, ""]:
        return sharded_nt_xent(
            z,
            classes,
            mesh=runtime.mesh,
            axis=DATA_AXIS,
            num_classes=num_classes,
            shared_classes=NUM_CLASSES,
            temperature=config.loss.temperature,
            block_size=config.loss.block_size,
        )

    finished = make_augment(config, runtime)

    def step(state: TrainState, batch: Batch | batches.Rows) -> tuple[TrainState, Measures]:
        views, classes = map(jnp.asarray, finished(batch) if isinstance(batch, batches.Rows) else batch)

        def through(params: Any, views: Array, *, axis: str | None = None) -> tuple[Array, Any]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            return project(config.model, variables, views, remat=config.train.remat, axis=axis)

        loss, stats, gradients = value_and_gradient(
            through,
            lambda z: loss_of(z, classes),
            state.params,
            views,
            config.train.accumulation,
            mesh=runtime.mesh,
            axis=DATA_AXIS,
        )
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
        measures = {
            "loss": loss,
            "learning_rate": optim.learning_rate(config.optim, steps, state.step),
            "gradient_norm": optax.tree.norm(gradients),
        }
        return TrainState(state.step + 1, optax.apply_updates(state.params, updates), stats, opt_state), measures

    return jax.jit(
        step,
        in_shardings=(runtime.replicated, runtime.batch_sharded),
        out_shardings=(runtime.replicated, runtime.replicated),
        donate_argnums=0,
        compiler_options=_compiler_options(config, runtime),
    )


def _compiler_options(config: Config, runtime: Runtime) -> dict[str, str] | None:
    """XLA's CPU compiler takes away the barriers around what is computed again, and then keeps the first result after all."""
    on_cpu = runtime.mesh.devices.flat[0].platform == "cpu"
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if config.train.remat and on_cpu else None


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

    `watch` is told what to expect next; it serves where there are several processes. `start`: `starting_weights(config)` if
    they are at hand; a resumed run needs none. Raises UserError (Diverged) where the
    loss stops being a number, and where a checkpoint does not fit or be written.
    """
    steps, often = total_steps(config, len(pipeline.pristine), len(pipeline.authentic)), config.train
    run = workdir if isinstance(workdir, Workdir) else Workdir(workdir)
    watch = watch or Watchdog(often.wait_seconds)
    with closing(Checkpoints(run.checkpoints, often.keep_checkpoints, wait_seconds=often.wait_seconds)) as checkpoints:
        first = checkpoints.latest() or 0
        hosts.agree("the newest checkpoint", None, often.wait_seconds, same={"newest checkpoint": str(first)})
        watch.expect("the start from the newest checkpoint")
        variables = None if first else start or starting_weights(config)
        state = runtime.replicate(init_state(config, steps, variables))
        if first:
            state = checkpoints.restore(first, state)
        watch.pause()  # before the first step something is compiled
        with _metrics(run.folder, first, steps, config) as metrics, hosts.StopOnTerminate() as stop:
            waiting: list[tuple[int, Measures]] = []
            saved = first or None
            run_step = make_step(config, runtime, steps)
            for done, batch in enumerate(map(runtime.place, pipeline.batches(first, steps)), first + 1):
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
                save = leave or done % often.checkpoint_every == 0
                if save or done % often.log_every == 0 or done == first + 1:
                    # one transfer from the devices a window
                    rows = [{"step": number, **jax.tree.map(float, values)} for number, values in waiting]
                    rows[-1]["broken_images"] = hosts.total(pipeline.broken.count)
                    waiting = []
                    if metrics:
                        metrics.write([row for row in rows if is_finite(row)])
                    check_finite(rows, saved)
                if save:
                    watch.expect(f"the checkpoint of step {done}")
                    run.publish()  # before the checkpoint, so that no resumed run lacks lines up to it
                    checkpoints.save(done, state, config)
                    saved = done
                if leave:
                    break
            watch.expect("the last checkpoint")
            checkpoints.wait()
        watch.expect("the list of broken images")
        run.publish(required=True)
        hosts.barrier("the end", often.wait_seconds)
        watch.expect("the model")
        if int(state.step) >= steps and hosts.is_first() and not (run.folder / "model").exists():
            _save_model(config, run, state, steps)
            run.publish(required=True)
    return state


def _metrics(workdir: Path, first: int, steps: int, config: Config) -> AbstractContextManager[Metrics | None]:
    """The one process that writes them has them."""
    if not hosts.is_first():
        return nullcontext()
    return closing(Metrics(workdir, first=first, last=steps, images_per_step=config.data.batch_size))


def _save_model(config: Config, run: Workdir, state: TrainState, steps: int) -> None:
    variables = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    provenance = {"steps": steps, "seed": config.train.seed, "pristine": config.data.pristine}
    provenance |= {"authentic": config.data.authentic, "broken_images": len(run.broken_images())}
    provenance |= {"init_from": config.train.init_from} if config.train.init_from else {}
    save_model(run.folder / "model", config.model, variables, provenance=provenance)


if __name__ == "__main__":
    print("error: a training is started by `python -m contrique_jax.main`, or `contrique-jax train`.", file=sys.stderr)
    sys.exit(2)
