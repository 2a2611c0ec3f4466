"""Targets: which one is chosen, and what their machine code must and must not contain.

Turns single instructions into assembly and looks for mnemonics; what the instructions compute is
tested in test_instructions.py.
"""

from __future__ import annotations

import re

import pytest
from instruction_code import Memory, Use, assembly
from instruction_uses import TARGETS, uses

from simdflow.compiler.program import Vec
from simdflow.dsl.errors import TargetError
from simdflow.targets import detect, host_features, host_targets, target
from simdflow.targets.avx512 import avx512
from simdflow.targets.vectormath import MAX_ULP


def mnemonics(name: str, use: Use) -> list[str]:
    return [line.split()[0] for line in assembly(TARGETS[name], use)]


def needs(name: str, *features: str) -> None:
    if name not in TARGETS or not host_features().issuperset(features):
        pytest.skip(f"this CPU lacks {name} with {', '.join(features) or 'nothing more'}")


def dot4(lanes: int, a: str = "u8", b: str = "i8") -> Use:
    acc = Vec("i32", lanes)
    return Use("dot", acc, (acc, Vec(a, 4 * lanes), Vec(b, 4 * lanes)))


@pytest.mark.parametrize(("a", "b"), [("u8", "i8"), ("i8", "u8")])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_four_products_are_one_instruction_with_vnni(lanes: int, a: str, b: str) -> None:
    needs("avx512", "avx512vnni")
    found = mnemonics("avx512", dot4(lanes, a, b))
    assert found.count("vpdpbusd") == 1
    assert not any(m.startswith(("vpmadd", "vpmull", "vpshuf", "vperm")) for m in found)


def test_the_bare_targets_have_no_vnni() -> None:
    for name in TARGETS:
        if name.endswith("_bare"):
            assert not any("dpbusd" in m for m in mnemonics(name, dot4(4)))


@pytest.mark.parametrize("name", [t.name for t in host_targets() if t.name != "portable"])
def test_pairs_of_products_are_pmaddwd(name: str) -> None:
    lanes = TARGETS[name].width // 32
    acc = Vec("i32", lanes)
    use = Use("dot", acc, (acc, Vec("u8", 2 * lanes), Vec("i8", 2 * lanes)))
    found = mnemonics(name, use)
    assert sum(m in ("vpmaddwd", "vpdpwssd") for m in found) == 1
    assert "vpmaddubsw" not in found


@pytest.mark.parametrize("name", [t.name for t in host_targets() if t.name != "portable"])
def test_narrowing_is_packs_and_one_permute(name: str) -> None:
    lanes = TARGETS[name].width // 32
    acc = Vec("i32", lanes)
    found = mnemonics(name, Use("narrow_add", Vec("u8", 4 * lanes), (*(acc,) * 4, 7)))
    assert found.count("vpackssdw") == found.count("vpaddsw") == 2
    assert found.count("vpackuswb") == found.count("vpermd") == 1


def test_a_depthwise_gather_is_one_shuffle_of_bytes_or_two() -> None:
    needs("avx512")
    use = Use("gather", Vec("u8", 64), (Memory("u8"), 4, 1, 64, 16, 4))
    found = mnemonics("avx512", use)
    assert not any(m.startswith("vpunpck") for m in found)
    shuffles = sum(m.startswith(("vperm", "vpshuf")) for m in found)
    assert shuffles == (1 if "avx512vbmi" in host_features() else 2)


def test_weaving_is_one_interleaving() -> None:
    needs("avx512")
    row = Vec("u8", 64)
    assert "vpunpcklbw" in mnemonics("avx512", Use("zip", row, (row, row, 0, 1)))
    assert "vpunpckhwd" in mnemonics("avx512", Use("zip", row, (row, row, 1, 2)))


@pytest.mark.parametrize("name", list(TARGETS))
def test_f32_is_multiplied_and_added_without_the_c_library(name: str) -> None:
    acc = Vec("f32", TARGETS[name].width // 32)
    found = mnemonics(name, Use("dot", acc, (acc, acc, acc)))
    assert any(m.startswith("vfmadd") for m in found) == (name != "portable")
    for row in ("round", "floor", "ceil", "floordiv", *MAX_ULP):
        use = Use(row, acc, (acc, acc) if row == "floordiv" else (acc,))
        assert not any(m.startswith(("call", "jmp")) for m in mnemonics(name, use)), row


def test_a_requantization_stays_in_vectors() -> None:
    for name, chosen in TARGETS.items():
        floats = Vec("f32", chosen.width // 32)
        for row in ("saturate", "round_saturate"):
            for want in ("i32", "u8"):
                found = mnemonics(name, Use(row, Vec(want, floats.lanes), (floats,)))
                assert not any("ss2si" in m for m in found), (name, row, want)


def test_avx2_code_has_no_avx512_instruction() -> None:
    needs("avx2")
    for name in ("avx2", "avx2_bare"):
        for listed in uses(name).values():
            for use in listed[:: max(len(listed) // 6, 1)]:
                text = "\n".join(assembly(TARGETS[name], use))
                assert not re.search(r"%zmm|%k[0-7]|[xy]mm(1[6-9]|2\d|3[01])\b", text), use


def test_portable_code_has_no_avx_instruction() -> None:
    for listed in uses("portable").values():
        for use in listed[:: max(len(listed) // 6, 1)]:
            text = "\n".join(assembly(TARGETS["portable"], use))
            assert not re.search(r"%[yz]mm", text), use


# Choosing a target.


def test_the_best_target_is_the_default() -> None:
    assert target() is host_targets()[0]
    assert target("portable") is host_targets()[-1]
    assert target(host_targets()[0]) is host_targets()[0]


def test_every_target_has_every_row() -> None:
    for chosen in TARGETS.values():
        assert set(chosen.table) == set(TARGETS["portable"].table)


def test_an_unknown_target_is_refused() -> None:
    allowed = ", ".join(t.name for t in host_targets())
    with pytest.raises(TargetError) as error:
        target("sve9")
    assert str(error.value) == (
        f"target: name='sve9' is not known; allowed on this CPU are {allowed}. "
        "Choose one of them, or none for the best."
    )


def test_a_target_this_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without_it = tuple(t for t in host_targets() if t.name != "avx512")
    monkeypatch.setattr(detect, "host_features", lambda: frozenset({"avx2", "fma", "avx512f"}))
    monkeypatch.setattr(detect, "host_targets", lambda: without_it)
    allowed = ", ".join(t.name for t in without_it)
    message = (
        "target: name='avx512' needs {}, which this CPU lacks; "
        f"allowed on this CPU are {allowed}. Choose one of them, or none for the best."
    )
    with pytest.raises(TargetError) as error:
        target("avx512")
    assert str(error.value) == message.format("avx512bw, avx512dq, avx512vl")
    elsewhere = avx512("icelake-server", {"avx512vnni"}, "+avx512f,+avx512vnni")
    with pytest.raises(TargetError) as error:
        target(elsewhere)
    assert str(error.value) == message.format("avx512bw, avx512dq, avx512vl, avx512vnni")


def test_a_cpu_llvm_does_not_know_gets_the_portable_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "host_features", frozenset)
    assert [t.name for t in detect.host_targets.__wrapped__()] == ["portable"]
