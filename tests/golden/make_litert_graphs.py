"""Writes litert_graphs.npz: what LiteRT answers to the models of tests/tflite_cases.py.

Run by hand where ai-edge-litert 2.3.0, tflite and flatbuffers are installed:
`python tests/golden/make_litert_graphs.py`. The tests read the file only.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import tflite_cases

KERNELS = {"auto": OpResolverType.AUTO, "ref": OpResolverType.BUILTIN_REF}


def main() -> None:
    records: dict[str, np.ndarray] = {}
    for name in tflite_cases.names():
        case = tflite_cases.make(name)
        for kind, kernels in KERNELS.items():
            try:
                it = Interpreter(model_content=case.content, experimental_op_resolver_type=kernels)
            except ValueError:
                if kind == "auto":
                    raise
                continue  # LiteRT has no reference kernel for it
            it.allocate_tensors()
            for detail, value in zip(it.get_input_details(), case.inputs, strict=True):
                it.set_tensor(detail["index"], value)
            it.invoke()
            for i, detail in enumerate(it.get_output_details()):
                records[f"{name}|{kind}|{i}"] = it.get_tensor(detail["index"]).copy()
    np.savez_compressed(Path(__file__).with_name("litert_graphs.npz"), **records)
    print(len(records), "answers")


if __name__ == "__main__":
    main()
