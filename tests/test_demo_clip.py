"""The demo clip from film to result file, against the motion it was rendered from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core import result
from core.__main__ import main

DATA = Path(__file__).with_name("data")


@pytest.mark.parametrize("method", ["hyperbolic", "fit"])
def test_the_whole_clip_is_near_the_truth(tmp_path, method):
    assert main(["recover", str(DATA / "demo.mp4"), "-o", str(tmp_path), "--method", method, "--device", "cpu"]) == 0
    [path] = tmp_path.glob("*.npz")
    motion = result.read_result(path)
    with np.load(DATA / "demo_truth.npz") as truth:
        theirs = truth["joints_cam"].astype(float)
    assert motion.method == method and len(motion.frames) / len(theirs) > 0.98
    ours, theirs = motion.joints_cam.astype(float), theirs[motion.frames]
    error = np.linalg.norm((ours - ours[:, :1]) - (theirs - theirs[:, :1]), axis=-1)
    assert error.mean() < 0.09
    lazy = np.linalg.norm((ours - ours[:, :1]) - (theirs - theirs[:, :1])[::-1], axis=-1)
    assert lazy.mean() > 0.09  # another order of the same poses would not do
