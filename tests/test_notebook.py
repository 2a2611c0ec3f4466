"""What a notebook shows of a kernel: its stages, folded up, escaped; nothing is compiled for it."""

from __future__ import annotations

from html import escape

from sample_kernels import conv2d

import simdflow as sf

TYPES = {"x": sf.u8[1, 8, 8, 16], "w": sf.i8[3, 3, 16, 32]}


def test_a_kernel_shows_its_stages_without_compiling() -> None:
    made = conv2d.specialize(target="portable", **TYPES)
    shown = made._repr_html_()
    assert shown.count("<details>") == 4
    for stage in (made.nest, made.plan, made.program, made.source):
        assert escape(str(stage)) in shown
    assert "&lt;compiled conv2d(" in shown and "<compiled" not in shown
    assert not {"_compiled", "_built", "_native"} & set(vars(made))


def test_a_dataflow_that_does_not_fit_is_explained() -> None:
    flow = sf.Dataflow(tile={"ow": 6, "oc": 32, "oh": 6}, lanes="oc")
    shown = conv2d.specialize(target="portable", dataflow=flow, **TYPES)._repr_html_()
    assert "vector registers" in shown and "<details>" not in shown
