"""What every test shares: the Hypothesis profiles, a cache folder of its own, the sample models.

It turns the command line's ``--hypothesis-profile`` into settings and the environment variable
``SIMDFLOW_MODELS`` into a folder; it holds no strategy and no assertion.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

# A first example may compile a kernel, so neither a deadline nor "too slow" means anything here.
_COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("ci", derandomize=True, **_COMMON)
settings.register_profile("thorough", max_examples=2000, **_COMMON)
settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' object code out of the user's cache, and the user's out of the tests.

    The xdist controller makes the folder and its workers inherit it, so a kernel that two workers
    need is compiled once.
    """
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="simdflow-tests-")
        os.environ["SIMDFLOW_CACHE_DIR"] = folder
        os.environ["SIMDFLOW_TUNING"] = "off"  # what one test tunes must not change another
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of sample models: ``$SIMDFLOW_MODELS``, else ``../shared/models``, else a skip."""
    named = os.environ.get("SIMDFLOW_MODELS")
    folder = Path(named) if named else ROOT.parent / "shared" / "models"
    if not folder.is_dir():
        pytest.skip(f"no sample models: {folder} is not a folder (set SIMDFLOW_MODELS)")
    return folder
