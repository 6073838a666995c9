"""The training state and one pure step of any recipe, compiled over a mesh."""

from __future__ import annotations

import functools
from typing import Any

import flax.serialization
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from contrique_jax.config import Config, check_accumulation
from contrique_jax.data.pipeline import Tree
from contrique_jax.recipes import recipe_of
from contrique_jax.recipes.recipe import Variables, row_keys
from contrique_jax.training import optim
from contrique_jax.training.accumulation import value_and_gradient
from contrique_jax.training.mesh import DATA_AXIS, Runtime

Measures = dict[str, Float[Array, ""]]


@flax.struct.dataclass
class TrainState:
    """All that a step changes, and what it reads besides the batch."""

    step: Int[Array, ""]  # steps done
    variables: Variables  # "params", "batch_stats" and further collections of the recipe: nested dicts of arrays
    opt_state: Any
    constants: Tree  # of the recipe; handed on as they are

    @property
    def params(self) -> Tree:
        return self.variables["params"]

    @property
    def batch_stats(self) -> Tree:
        return self.variables["batch_stats"]


def _to_dict(state: TrainState) -> dict[str, Any]:
    """On disk the collections lie side by side; constants come from the config again."""
    stored = {"step": state.step, **state.variables, "opt_state": state.opt_state}
    return {name: flax.serialization.to_state_dict(value) for name, value in stored.items()}


def _from_dict(state: TrainState, stored: dict[str, Any]) -> TrainState:
    restored = {
        name: flax.serialization.from_state_dict(value, stored[name]) for name, value in state.variables.items()
    }
    opt_state = flax.serialization.from_state_dict(state.opt_state, stored["opt_state"])
    return TrainState(stored["step"], restored, opt_state, state.constants)


flax.serialization.register_serialization_state(TrainState, _to_dict, _from_dict, override=True)


def init_state(config: Config, steps: int, variables: Variables | None = None) -> TrainState:
    """The state before the first step, on the host: with these variables, or with those that the seed draws."""
    recipe = recipe_of(config)
    variables = variables or recipe.init(config, config.train.seed)
    optimiser = _optimiser(config, steps, variables)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, variables, optimiser.init(variables["params"]), recipe.constants(config))


def _optimiser(config: Config, steps: int, variables: Variables) -> optax.GradientTransformation:
    return optim.optimiser(config.optim, steps, recipe_of(config).decays(config, variables))


def make_finish(config: Config, runtime: Runtime) -> Any:
    """Each role's examples -> the batch: each device finishes its own rows."""
    split = runtime.batch_sharded.spec
    finish = functools.partial(recipe_of(config).finish, config)
    return jax.shard_map(finish, mesh=runtime.mesh, in_specs=(split,), out_specs=split, check_vma=False)


def make_step(config: Config, runtime: Runtime, steps: int) -> jax.stages.Wrapped:
    """The jitted step over the mesh: (TrainState, batch) -> (TrainState, Measures). The state is donated.

    With `data.augment_on` "device" the batch is each role's examples, finished in the step. The loss and its gradient are
    the global batch's, whatever the number of devices and of micro-batches (`train.accumulation`). BatchNorm sees a
    micro-batch, of all devices. Raises UserError if the devices' rows do not fall into that many micro-batches.
    """
    recipe, split = recipe_of(config), runtime.batch_sharded.spec
    check_accumulation(config.train.accumulation, config.data.batch_size, runtime.devices, recipe.rows_together)
    finished = make_finish(config, runtime)

    def step(state: TrainState, batch: Tree) -> tuple[TrainState, Measures]:
        batch = finished(batch) if config.data.augment_on == "device" else jax.tree.map(jnp.asarray, batch)
        optimiser = _optimiser(config, steps, state.variables)

        def forward(params: Tree, rows: tuple[Tree, Array], *, axis: str | None = None) -> tuple[Tree, Variables]:
            with jax.named_scope("forward"):
                return recipe.forward(config, state.variables | {"params": params}, state.constants, *rows, axis)

        @functools.partial(jax.shard_map, mesh=runtime.mesh, in_specs=(P(), split, split), out_specs=P())
        def objective(variables: Variables, outputs: Tree, batch: Tree) -> tuple[Array, tuple[Variables, Measures]]:
            with jax.named_scope("objective"):
                loss, changed, measures = recipe.objective(config, variables, outputs, batch, DATA_AXIS)
            return loss, (changed, measures)

        loss, (changed, measures), moved, gradients = value_and_gradient(
            forward,
            lambda outputs: objective(state.variables, outputs, batch),
            state.params,
            (batch, row_keys(config.train.seed, state.step, config.data.batch_size)),
            config.train.accumulation,
            together=recipe.rows_together,
            mesh=runtime.mesh,
            axis=DATA_AXIS,
        )
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
        variables = state.variables | moved | changed | {"params": optax.apply_updates(state.params, updates)}
        measures = {
            "loss": loss,
            "learning_rate": optim.learning_rate(config.optim, steps, state.step),
            "gradient_norm": optax.tree.norm(gradients),
            **measures,
        }
        after = TrainState(state.step + 1, recipe.after_update(config, variables), opt_state, state.constants)
        return after, measures

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
