"""Prints how long writing 1,000 frames x 24 bones of rotation keys takes, as a user's scene would receive them.

Run by `build.py bench` with a Python that has bpy, from the project's root.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import bpy  # noqa: E402
import numpy as np  # noqa: E402
import scene_support as support  # noqa: E402
import scene_world as world  # noqa: E402


def measure(runs: int = 5) -> float:
    """Best time in seconds from the frames' arrival to all keys standing in the action."""
    best = float("inf")
    for _ in range(runs):
        writer = world.start_writer(world.empty_scene(), support.synthetic_body(), {0: np.zeros(10)})
        writer.tick(1.0)
        message = support.frames_message(0, support.wild_motion(1000), slice(0, 1000))
        began = time.perf_counter()
        writer.handle(message)
        writer.finish()
        best = min(best, time.perf_counter() - began)
    return best


if __name__ == "__main__":
    seconds = measure()
    print(f"Blender {bpy.app.version_string}: 1,000 frames x 24 bones into keys in {seconds:.3f} s", flush=True)
