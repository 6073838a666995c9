"""The reader of compiled text, against XLA's own cost analysis and against sums done by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from contrique_jax.planning.hlo_text import Module, product_flops, shapes_of


def lowered_text(function, *shapes) -> tuple[str, float]:
    """The program before the compiler chooses libraries for it, and XLA's count of its operations."""
    lowered = jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    return lowered.as_text("hlo"), lowered.cost_analysis()["flops"]


@pytest.mark.parametrize(
    "stride,padding,dilation", [((1, 1), "SAME", (1, 1)), ((2, 2), "VALID", (1, 1)), ((2, 3), "SAME", (2, 1))]
)
def test_convolutions_count_as_in_xla(stride, padding, dilation):
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, stride, padding, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def back(x, w):
        return jax.grad(lambda x, w: convolve(x, w).sum(), (0, 1))(x, w)

    for function in (convolve, back):
        text, expected = lowered_text(function, (2, 15, 17, 3), (3, 3, 3, 8))
        products = sum(product_flops(met) for met in Module(text).met)
        assert products == pytest.approx(expected, rel=0.02 if function is convolve else 0.2)
        assert products <= expected


def test_matrix_products_count_twice_their_three_sides():
    text, expected = lowered_text(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (4, 5, 6), (4, 6, 7))
    assert sum(product_flops(met) for met in Module(text).met) == 2 * 4 * 5 * 6 * 7 == expected


def test_bytes_without_loops_are_those_of_xla():
    """On a CPU everything is in the main memory."""
    shapes = [jax.ShapeDtypeStruct((64, 128), jnp.float32), jax.ShapeDtypeStruct((128, 32), jnp.float32)]
    compiled = jax.jit(lambda a, b: jnp.tanh(a @ b).sum(0)).lower(*shapes).compile()
    counted = Module(compiled.as_text()).main_memory_bytes()
    assert counted == pytest.approx(compiled.cost_analysis()["bytes accessed"], rel=0.05)


def test_a_loop_counts_all_its_turns():
    def chain(x):
        return jax.lax.fori_loop(0, 11, lambda _, x: jnp.matmul(x, x, precision="highest"), x)

    text, _ = lowered_text(chain, (16, 16))
    module, once = Module(text), 2 * 16**3
    assert module.unknown_loops == 0
    assert module.repeated_flops() == 10 * once
    assert module.further_passes() == 11 * 5 * once
    assert module.main_memory_bytes() >= 11 * 2 * 16 * 16 * 4


def test_of_a_slice_the_slice_is_moved():
    def rows(x):
        def turn(total, row):
            return total + jax.lax.dynamic_slice_in_dim(x, row * 4, 4).sum(), None

        return jax.lax.scan(turn, 0.0, jnp.arange(256))[0]

    module = Module(jax.jit(rows).lower(jax.ShapeDtypeStruct((1024, 128), jnp.float32)).compile().as_text())
    whole = 1024 * 128 * 4
    assert whole <= module.main_memory_bytes() <= 4 * whole  # 256 turns, each with 1/256 of it


def test_a_loop_of_unknown_length_is_named():
    text, _ = lowered_text(lambda x: jax.lax.while_loop(lambda x: x[0] < 5, lambda x: x @ jnp.ones((4, 4)), x), (4,))
    module = Module(text)
    assert module.unknown_loops == 1 and module.repeated_flops() == 0


def test_collectives_of_a_compiled_step_in_a_loop():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def split(x):
        def turn(total, _):
            return total + jax.lax.psum(x * total[:1], "data"), None

        total, _ = jax.lax.scan(turn, jnp.ones((4, 6)), None, length=5)
        return jax.lax.all_gather(total * x.sum(), "data", tiled=True)

    step = jax.jit(jax.shard_map(split, mesh=mesh, in_specs=P("data"), out_specs=P(), check_vma=False))
    x = jax.ShapeDtypeStruct((32, 6), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    found = {one.kind: one for one in Module(step.lower(x).compile().as_text()).collectives()}
    assert set(found) == {"all-reduce", "all-gather"}
    assert found["all-reduce"].times == 5 and found["all-reduce"].bytes == 4 * 6 * 4
    assert found["all-gather"].times == 1 and found["all-gather"].bytes == 32 * 6 * 4
    assert found["all-gather"].largest == (32, 6)


def test_sizes_and_places_of_arrays():
    shapes = shapes_of("(f32[2,64]{1,0:T(2,128)S(1)}, bf16[3]{0:T(128)}, pred[], u8[5])")
    assert [shape.bytes for shape in shapes] == [512, 6, 1, 5]
    assert [shape.on_chip for shape in shapes] == [True, False, False, False]


TPU = """HloModule step

%fused (p: f32[8,4], q: f32[4,2]) -> f32[8,2] {
  %p = f32[8,4]{1,0:T(8,128)} parameter(0)
  %q = f32[4,2]{1,0:T(8,128)} parameter(1)
  ROOT %convolution.1 = f32[8,2]{1,0:T(8,128)} convolution(%p, %q), dim_labels=bf_io->bf, operand_precision={highest,highest}
}

%body (s: (s32[], f32[8,2])) -> (s32[], f32[8,2]) {
  %s = (s32[]{:T(128)}, f32[8,2]{1,0:T(8,128)}) parameter(0)
  %a = f32[8,4]{1,0:T(8,128)S(1)} constant({...})
  %b = f32[4,2]{1,0:T(8,128)} constant({...})
  %f = f32[8,2]{1,0:T(8,128)} fusion(%a, %b), kind=kOutput, calls=%fused
  %n = s32[]{:T(128)} get-tuple-element(%s), index=0
  ROOT %t = (s32[]{:T(128)}, f32[8,2]{1,0:T(8,128)}) tuple(%n, %f)
}

%turns (s.1: (s32[], f32[8,2])) -> pred[] {
  %most = s32[]{:T(128)} constant(3)
  %s.1 = (s32[]{:T(128)}, f32[8,2]{1,0:T(8,128)}) parameter(0)
  %at = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%at, %most), direction=LT
}

ENTRY %main (x: (s32[], f32[8,2])) -> (s32[], f32[8,2]) {
  %x = (s32[]{:T(128)}, f32[8,2]{1,0:T(8,128)}) parameter(0)
  ROOT %w = (s32[]{:T(128)}, f32[8,2]{1,0:T(8,128)}) while(%x), condition=%turns, body=%body
}
"""


COPIES = """HloModule copies

ENTRY %main (p: f32[8,4], q: bf16[6,16]) -> f32[8,4] {
  %p = f32[8,4]{1,0:T(8,128)} parameter(0)
  %q = bf16[6,16]{1,0} parameter(1)
  %in = (f32[8,4]{1,0:T(8,128)S(1)}, f32[8,4]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%p)
  %there = f32[8,4]{1,0:T(8,128)S(1)} copy-done(%in)
  %part = ((bf16[6,16]{1,0}), bf16[2,16]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%q), slice={[0:2], [0:16]}
  %parted = bf16[2,16]{1,0:S(1)} slice-done(%part)
  %all = ((f32[8,4]{1,0}, bf16[6,16]{1,0}), (f32[32,4]{1,0}, bf16[24,16]{1,0})) all-gather-start(%p, %q), dimensions={0}
  %done = (f32[32,4]{1,0}, bf16[24,16]{1,0}) all-gather-done(%all)
  %less = f32[2,4]{1,0:S(1)} reduce-scatter(%there), dimensions={0}, to_apply=%add
  %out = (f32[8,4]{1,0:T(8,128)}, f32[8,4]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%there)
  ROOT %back = f32[8,4]{1,0:T(8,128)} copy-done(%out)
}
"""


def test_copies_to_the_chips_own_memory_count_once_on_the_side_of_the_main_one():
    module = Module(COPIES)
    moved = {met.instruction.name: module.moved_bytes(met) for met in module.met}
    assert moved["in"] == moved["out"] == 8 * 4 * 4 and moved["part"] == 2 * 16 * 2
    assert moved["there"] == moved["back"] == moved["parted"] == moved["done"] == 0


SLICES = """HloModule slices

%fused (p: f32[64,4], q: f32[2,4], i: s32[]) -> f32[256] {
  %p = f32[64,4]{1,0} parameter(0)
  %q = f32[2,4]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %set = f32[64,4]{1,0} dynamic-update-slice(%p, %q, %i, %i)
  ROOT %flat = f32[256]{0} bitcast(%set)
}

ENTRY %main (p: f32[64,4], q: f32[2,4], i: s32[]) -> f32[64,4] {
  %p = f32[64,4]{1,0} parameter(0)
  %q = f32[2,4]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %f = f32[256]{0} fusion(%p, %q, %i), kind=kLoop, calls=%fused
  %there = f32[64,4]{1,0:S(1)} dynamic-update-slice(%p, %q, %i, %i)
  ROOT %set = f32[64,4]{1,0} dynamic-update-slice(%p, %q, %i, %i)
}
"""


def test_setting_a_slice_reads_it_where_it_comes_from_and_writes_it():
    module, update, index = Module(SLICES), 2 * 4 * 4, 4
    moved = {met.instruction.name: module.moved_bytes(met) for met in module.met if not met.fused}
    assert moved["set"] == 2 * update + 2 * index
    assert moved["there"] == update + 2 * index
    assert moved["f"] == 2 * update + index


def test_joined_gathers_count_all_that_comes_out_and_a_reduce_scatter_what_goes_in():
    gather, scatter = Module(COPIES).collectives()
    assert (gather.kind, gather.bytes, gather.arrays) == ("all-gather", 32 * 4 * 4 + 24 * 16 * 2, 2)
    assert (scatter.kind, scatter.bytes) == ("reduce-scatter", 8 * 4 * 4)


def test_the_text_of_the_compiler_for_tpus():
    module = Module(TPU)
    assert module.repeated_flops() == 2 * (2 * 8 * 4 * 2)
    assert module.further_passes() == 3 * 5 * (2 * 8 * 4 * 2)
    fusion = next(met for met in module.met if met.instruction.name == "f")
    assert module.moved_bytes(fusion) == 8 * 2 * 4 + 4 * 2 * 4  # the left side lies on the chip
