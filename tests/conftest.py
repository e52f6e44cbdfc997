"""Shared by all tests: where the real data is, how Hypothesis runs, what Ctrl-C does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: a busy machine must not fail a test.
settings.register_profile("bgaug", deadline=None, print_blob=True)
settings.load_profile("bgaug")

# Shells start background jobs with SIGINT ignored, and all that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_coco_root() -> Path:
    """Folder with 50 + 50 images of COCO 2017; the test skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "tiny_coco"
    root = Path(os.environ.get("BGAUG_TINY_COCO", beside))
    if not (root / "annotations" / "instances_train2017.json").is_file():
        pytest.skip(f"no tiny COCO at {root}; set BGAUG_TINY_COCO to a folder that has it")
    return root
