"""ONNX's own node tests as cases for the importer, and the table of operators that they make.

`python tests/onnx_cases.py` prints docs/onnx_operators.md; a test compares the two. Every case of
every operator that the importer knows is either run or excluded here, with a reason.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from simdflow.dsl.errors import ModelError
from simdflow.frontends.onnx import FOLDED_ONLY, OPERATORS, STANDARD_OPERATORS, from_onnx
from simdflow.frontends.onnx_file import OPSETS
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Graph

# TensorProto types that the importer reads as the value of a graph.
FLOAT, DOUBLE, BFLOAT16 = 1, 11, 16
TYPES = {FLOAT, 2, 3, 6, 7, 9, 10, DOUBLE, BFLOAT16}
OTHER_TYPES = "an element type that no value of a graph has"
# Why a case is not run. It must then be refused, or give another result: see `excluded_rightly`.
EXCLUDED = {
    r"(add|sub|mul|div|max|min)_u?int(8|32|64)|div_int32_trunc|clip_default_int8_":
        "arithmetic of computed integers",
    r"cast(like)?_.*_to_DOUBLE": OTHER_TYPES,
    r"pow_types_int|where_long": "arithmetic of computed integers",
    r"pow$|pow_example|pow_bcast_array|pow_types_float32_": "exponents that differ",
    r"(averagepool|maxpool|convtranspose)_3d": "three spatial axes",
    r"maxpool_with_argmax": "the output Indices",
    r"training_mode|training_dropout": "training",
    r"quantizelinear_blocked": "scales of blocks",
    r"reduce_(?!prod).*empty_set|split_zero_size|reshape_allowzero_reordered|slice_start_out_of_bounds":
        "tensors without elements",
    r"reduce_(max|min)_bool": "a reduction of bool",
    r"resize_tf_crop": "cropping by roi",
    r"resize_downsample_scales_(linear|cubic)_align_corners":
        "corners are aligned with the rounded size, as onnxruntime does",
    r"identity_(sequence|opt)": "sequences and optionals",
    r"spacetodepth_crd": "a form newer than opset 22",
}  # fmt: skip
# Inputs of cases that are given as constants, beyond those that must be.
BOUND = {
    r"quantizelinear_axis": (1, 2),
    r"gather_negative_indices": (1,),
    r"castlike_": (1,),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """One node test: a model of one node in the opset of its case, inputs and expected outputs."""

    name: str
    kind: str
    model: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    @property
    def reason(self) -> str:
        """Why it is excluded, or ""."""
        for value in (*self.model.graph.input, *self.model.graph.output):
            tensor = value.type.WhichOneof("value") == "tensor_type"
            if tensor and value.type.tensor_type.elem_type not in TYPES:
                return OTHER_TYPES
        short = self.name.removeprefix("test_")
        return next((why for form, why in EXCLUDED.items() if re.search(form, short)), "")

    @property
    def tolerance(self) -> float:
        """Relative, for floats; expected values of bfloat16 are rounded, and ours are f32."""
        values = (*self.model.graph.input, *self.model.graph.output)
        return 2**-7 if any(v.type.tensor_type.elem_type == BFLOAT16 for v in values) else 1e-3

    def imported(self, weights: bool = False) -> tuple[Graph, dict[str, np.ndarray]]:
        """The graph, and arrays for its inputs; with `weights`, all inputs but the first are
        constants.
        """
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for domain in model.opset_import:
            if domain.domain == "":
                # Newer versions of an operator add types to it; cases of these are excluded.
                domain.version = min(max(domain.version, OPSETS[0]), OPSETS[-1])
        for value in model.graph.input:
            # No value of a graph is double: these cases are run on the same numbers as float.
            if value.type.tensor_type.elem_type == DOUBLE:
                value.type.tensor_type.elem_type = FLOAT
        names = [value.name for value in model.graph.input]
        bound = [self.model.graph.node[0].input[i] for i in self._bound(weights)]
        for name in [b for b in dict.fromkeys(bound) if b]:
            array = self.inputs[names.index(name)]
            if not isinstance(array, onnx.TensorProto):
                single = np.asarray(array)
                single = single.astype(np.float32) if single.dtype == np.float64 else single
                array = onnx.numpy_helper.from_array(single)
            model.graph.initializer.append(array)
            model.graph.initializer[-1].name = name
        graph = from_onnx(model.SerializeToString())
        arrays = {n: stored(a) for n, a in zip(names, self.inputs, strict=True)}
        return graph, {n: arrays[n] for n in graph.inputs}

    def _bound(self, weights: bool) -> Iterator[int]:
        count = len(self.model.graph.node[0].input)
        if self.kind in FOLDED_ONLY or weights:
            yield from range(int(weights), count)
            return
        yield from (i for i in STANDARD_OPERATORS[self.kind].constants if i < count)
        short = self.name.removeprefix("test_")
        for form, places in BOUND.items():
            if re.search(form, short):
                yield from (i for i in places if i < count)

    def check(self) -> None:
        """AssertionError unless the graph gives the expected outputs."""
        graph, arrays = self.imported()
        found = evaluate(graph, arrays)
        for value, array in zip(self.model.graph.output, self.outputs, strict=True):
            wanted, got = stored(array), found[value.name]
            assert got.shape == wanted.shape, (got.shape, wanted.shape)
            assert got.dtype == wanted.dtype, (got.dtype, wanted.dtype)
            rough = self.tolerance if got.dtype.kind == "f" else 0
            np.testing.assert_allclose(got, wanted, rtol=rough, atol=1e-6 if rough else 0)

    def excluded_rightly(self) -> bool:
        """Whether the case cannot be run: a stale exclusion is an error of the table."""
        try:
            self.check()
        except (ModelError, AssertionError, ValueError):
            return True
        return False


def stored(array: Any) -> np.ndarray:
    """An array in the type that a graph has for it: bool as u8, all floats as f32."""
    import onnx

    found = onnx.numpy_helper.to_array(array) if isinstance(array, onnx.TensorProto) else array
    found = np.asarray(found)
    if found.dtype == np.bool_:
        return found.astype(np.uint8)
    wide = found.dtype.name in ("float16", "bfloat16", "float64")
    return found.astype(np.float32) if wide else found


@cache
def cases() -> dict[str, tuple[Case, ...]]:
    """The node tests of every operator that the importer knows, by operator."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow on purpose
        tests = load_model_tests(kind="node")
    found: dict[str, list[Case]] = {}
    for test in tests:
        if test.model is None or "_expanded" in test.name or len(test.model.graph.node) != 1:
            continue
        node = test.model.graph.node[0]
        if node.domain == "" and (
            node.op_type in STANDARD_OPERATORS or node.op_type in FOLDED_ONLY
        ):
            inputs, outputs = test.data_sets[0]
            case = Case(test.name, node.op_type, test.model, tuple(inputs), tuple(outputs))
            found.setdefault(node.op_type, []).append(case)
    return {kind: tuple(group) for kind, group in sorted(found.items())}


def table() -> str:
    """docs/onnx_operators.md."""
    import onnx

    found = cases()
    lines = [
        "# ONNX operators",
        "",
        f"What `simdflow.from_onnx` imports, opset {OPSETS[0]} to {OPSETS[-1]}. *Run* counts the "
        f"node tests of onnx {onnx.__version__}",
        "that the suite runs through the importer and the numpy evaluation of its graph; "
        "*excluded* are those that it",
        "does not run, each with a reason below. Inputs under *constant* must be known when the "
        "model is imported: an",
        "initializer, a Constant, or what follows from shapes. Floats of 16 bits are computed "
        "in f32, and so are the cases",
        "of double. Written by `python tests/onnx_cases.py`.",
        "",
        "| operator | run | excluded | constant | limits |",
        "|---|---:|---:|---|---|",
    ]
    for kind in sorted({*STANDARD_OPERATORS, *FOLDED_ONLY}):
        group = found.get(kind, ())
        out = sum(bool(case.reason) for case in group)
        known = STANDARD_OPERATORS.get(kind)
        constant = ", ".join(map(str, known.constants)) if known else "all"
        note = known.note if known else "computed on import"
        lines.append(f"| {kind} | {len(group) - out} | {out} | {constant} | {note} |")
    total = [case for group in found.values() for case in group]
    out = sum(bool(case.reason) for case in total)
    lines += [
        f"| all | {len(total) - out} | {out} | | |",
        "",
        "Of the domain `com.microsoft`: " + ", ".join(sorted(OPERATORS["com.microsoft"])) + ".",
        "",
        "## Excluded cases",
        "",
        "| reason | cases |",
        "|---|---:|",
    ]
    reasons = [case.reason for case in total if case.reason]
    lines += [f"| {why} | {reasons.count(why)} |" for why in sorted(set(reasons))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
