"""The design space: what it holds, what it leaves out and why, and its filters' errors.

Independent of the enumeration: legality is asked of `specialize`, the paper's allocations are
computed here from its rules.
"""

from __future__ import annotations

import itertools

import pytest
from sample_kernels import conv2d
from tuned_kernels import dense, relu

import simdflow as sf
from simdflow.compiler.plan import RegisterPlan
from simdflow.tuning.space import Space


def small(**filters: object) -> Space:
    return sf.dataflows(dense, x=sf.u8[5, 24], w=sf.i8[24, 32]).where(**filters)  # type: ignore[arg-type]


def window(f: int, stride: int, target: str = "avx512") -> Space:
    if target not in {t.name for t in sf.host_targets()}:
        pytest.skip(f"{target} cannot run here")
    size = 7 * stride + f
    types = {"x": sf.u8[1, size, size, 64], "w": sf.i8[f, f, 64, 8]}
    return sf.dataflows(conv2d, target=target, **types, stride=stride)


def test_every_dataflow_is_legal_once_and_in_the_same_order() -> None:
    space = small()
    found = list(space)
    assert found == list(small())
    assert len(found) == len(set(found)) == space.count() > 50
    some = found[::12]
    programs = {str(space.made(f).program) for f in some}
    assert len(programs) > 0.9 * len(some)
    for flow, why in itertools.islice(space.refused(), 5):
        with pytest.raises(sf.DataflowError) as error:
            _ = space.made(flow).plan
        assert str(error.value) == why


def test_the_default_dataflow_is_in_the_space() -> None:
    for space in (small(), window(3, 1), window(3, 2, "avx2")):
        default = space.made(None).flow
        assert default in set(space.where(anchors="out", lanes=default.lanes))


def test_refusals_are_counted_by_reason() -> None:
    space = window(5, 1).where(anchors="x", lanes="ic")
    counts = space.refusals()
    assert "the tile needs N vector registers" in counts
    assert sum(counts.values()) == len(list(space.refused()))


def test_filters_hold_and_compose() -> None:
    space = window(3, 1)
    for flow in space.where(anchors="w", lanes={"ic"}, auxiliary=True, registers=20):
        plan: RegisterPlan = space.made(flow).plan
        assert (flow.anchor, flow.lanes) == ("w", "ic")
        assert flow.auxiliary
        assert plan.registers <= 20
    none = list(space.where(lanes="ic").where(auxiliary=False))
    assert none
    assert not any(f.auxiliary for f in none)
    exact = list(space.where(lanes="ic", anchors="out", auxiliary={"w": 9}))
    assert exact
    assert {dict(f.auxiliary)["w"] for f in exact} == {9}
    assert all("x" in dict(f.auxiliary) for f in space.where(lanes="ic", auxiliary="x"))
    for flow in space.where(lanes="ic", anchors="out", width=128).sample(4):
        assert space.made(flow).plan.flow.width == 128


@pytest.mark.parametrize("f", [3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("first", ["w", "x"])
def test_the_papers_output_anchored_allocations_are_there(f: int, stride: int, first: str) -> None:
    """Weights or inputs first, f - stride columns unrolled, one vector of channels over the lanes.

    The paper's N counts variables beyond three working ones; here each accumulator of the columns
    takes one, so that what is left is what the plan says.
    """
    space = window(f, stride).where(anchors="out", lanes="ic", auxiliary=True)
    columns = max(f - stride, 1)
    rows = {a: f for a in ("kh", "kw")}
    found = []
    for flow in space:
        tile, unroll, aux = (dict(s) for s in (flow.tile, flow.unroll, flow.auxiliary))
        if tile.get("ow", 1) == columns and "oh" not in tile and rows.items() <= unroll.items():
            plan: RegisterPlan = space.made(flow).plan
            found.append((aux, plan))
    assert found
    taps, window_size = f * f, f * (f + stride * (columns - 1))
    other = "x" if first == "w" else "w"
    most = {"w": taps, "x": window_size}
    assert any(
        aux[first] == most[first] or (plan.registers >= 28 and aux[other] == 1)
        for aux, plan in found
    )


def test_the_papers_other_anchors_give_registers_to_both_others() -> None:
    for anchor, others in (("w", {"x", "out"}), ("x", {"w", "out"})):
        space = window(3, 1).where(anchors=anchor, lanes="ic", auxiliary=True)
        named = [dict(f.auxiliary) for f in space]
        for name in others:
            assert max(aux.get(name, 0) for aux in named) > 1
        if anchor == "w":
            assert any(set(aux) == others for aux in named)


@pytest.mark.parametrize("target", ["avx2", "avx512"])
def test_pixels_and_reduced_channels_can_be_lanes(target: str) -> None:
    space = window(3, 1, target)
    lanes = {f.lanes for f in space.sample(40)}
    assert {"oc", "ow", "ic"} <= lanes


def test_samples_are_legal_stratified_and_reproducible() -> None:
    space = window(3, 1)
    found = space.sample(36, seed=3)
    assert found == space.sample(36, seed=3)
    assert found != space.sample(36, seed=4)
    assert len(set(found)) == 36
    for flow in found:
        assert space.made(flow).plan is not None
    strata = {(f.anchor, f.lanes, bool(f.auxiliary)) for f in found}
    assert len(strata) == 3 * 3 * 2
    assert set(small().sample(10_000)) == set(small())


def test_a_nest_without_a_product_has_lanes_and_tiles() -> None:
    space = sf.dataflows(relu, x=sf.f32[6, 40])
    assert space.count() > 4
    assert {f.anchor for f in space} == {"out"}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (
            {"anchors": "y"},
            "dense: anchors='y' chooses nothing; out, x, w exist in this space. Use one of them.",
        ),
        (
            {"anchors": []},
            "dense: anchors='' chooses nothing; out, x, w exist in this space. Use one of them.",
        ),
        (
            {"lanes": ("oc", "kw")},
            "dense: lanes='oc' chooses nothing; n, m, k exist in this space. Use one of them.",
        ),
        (
            {"auxiliary": {"z": 2}},
            "dense: auxiliary='z' chooses nothing; out, x, w exist in this space. Use one of them.",
        ),
        (
            {"registers": 0},
            "dense: registers=0 is not possible on portable; 1 to {registers} is. Use one of "
            "these.",
        ),
        (
            {"width": 100},
            "dense: width=100 is not possible on portable; {widths} is. Use one of these.",
        ),
    ],
)
def test_a_filter_that_can_choose_nothing_says_what_there_is(
    filters: dict[str, object], message: str
) -> None:
    target = sf.target("portable")
    space = sf.dataflows(dense, x=sf.u8[5, 24], w=sf.i8[24, 32], target=target)
    widths = ", ".join(str(w) for w in (128, 256, 512) if w <= target.width)
    with pytest.raises(sf.DataflowError) as error:
        space.where(**filters)  # type: ignore[arg-type]
    assert str(error.value) == message.format(registers=target.registers, widths=widths)
