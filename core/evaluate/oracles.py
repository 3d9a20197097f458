"""What each part of the error is worth: the same method, told one part of the truth.

Before it works a method can be given the true 2D keypoints, the true 3D landmarks with them, or the true focal
length; in what it returns the true height, shape or root rotation can be put in its place, and the average shape,
which shows what the recovered one is worth. Every row is a method of its own for `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from core.evaluate.report import Method
from core.evaluate.testset import TestClip
from core.evaluate.truth import project, true_keypoints
from core.models.inputs import ImageGeometry, crop_of, view_rotation
from core.records import CameraMotion
from core.skeleton import KEYPOINT_NAMES
from core.stature import resize

Give = Callable[[TestClip, object], TestClip]
Correct = Callable[[CameraMotion, TestClip], CameraMotion]
_HIPS = [KEYPOINT_NAMES.index(f"{side}_hip") for side in ("left", "right")]


def give_keypoints(clip: TestClip, body) -> TestClip:
    """True 2D keypoints, confidence 1 in every frame, hidden and outside ones as well (which a method may doubt)."""
    points = project(true_keypoints(clip, body), clip.lens)
    keypoints = np.concatenate([points, np.ones((*points.shape[:2], 1))], -1).astype(np.float32)
    seen = np.ones(len(points), np.float32)
    boxes = np.concatenate([points.min(1), points.max(1)], -1).astype(np.float32)
    return replace(clip, track=replace(clip.track, keypoints=keypoints, confidence=seen, boxes=boxes))


def give_landmarks(clip: TestClip, body) -> TestClip:
    """True 2D keypoints, and true 3D landmarks turned as a camera that looks at the crop's middle sees them."""
    clip = give_keypoints(clip, body)
    points = true_keypoints(clip, body)
    sizes = (torch.full((1, 1), float(v)) for v in (clip.lens.width, clip.lens.height, clip.lens.fx))
    centre = crop_of(torch.from_numpy(clip.track.keypoints))[0].squeeze(-2)
    view = view_rotation(centre, ImageGeometry(*sizes)).double().numpy()
    landmarks = (points - points[:, _HIPS].mean(1, keepdims=True)) @ view
    return replace(clip, track=replace(clip.track, landmarks3d=landmarks.astype(np.float32)))


def give_focal(clip: TestClip, body) -> TestClip:
    """The true camera."""
    return replace(clip, camera=clip.lens)


def correct_shape(motion: CameraMotion, clip: TestClip) -> CameraMotion:
    """The recovered rotations on the true shape."""
    return replace(motion, betas=clip.betas.numpy())


def average_shape(motion: CameraMotion, clip: TestClip) -> CameraMotion:
    """The recovered rotations on the average body: no knowledge of the shape at all."""
    return replace(motion, betas=np.zeros_like(motion.betas))


def correct_root(motion: CameraMotion, clip: TestClip) -> CameraMotion:
    """The true rotation of the root; all others turn with it."""
    rotmats = motion.rotmats.copy()
    rotmats[:, 0] = clip.rotmats[: len(rotmats), 0].numpy()
    return replace(motion, rotmats=rotmats)


def correct_both(motion: CameraMotion, clip: TestClip) -> CameraMotion:
    """True shape and root: what is left is the pose within the body."""
    return correct_shape(correct_root(motion, clip), clip)


GIVEN: dict[str, Give] = {
    "true 2D": give_keypoints,
    "true 2D and 3D": give_landmarks,
    "true focal": give_focal,
    "true 2D and focal": lambda clip, body: give_focal(give_keypoints(clip, body), body),
    "true 2D, 3D and focal": lambda clip, body: give_focal(give_landmarks(clip, body), body),
}
CORRECTED: dict[str, Correct] = {
    "average shape": average_shape,
    "true shape": correct_shape,
    "true root": correct_root,
    "true shape and root": correct_both,
}


def with_oracles(methods: dict[str, Method], body) -> dict[str, Method]:
    """The methods, each followed by its oracles, named "method + what it was told". A method runs once a clip for
    itself and all corrections of its result."""
    result: dict[str, Method] = {}
    for name, method in methods.items():
        once = _Once(method)
        result[name] = once
        result |= {f"{name} + {what}": _given(method, give, body) for what, give in GIVEN.items()}
        result[f"{name} + true height"] = _resized(once, body)
        result |= {f"{name} + {what}": _corrected(once, correct) for what, correct in CORRECTED.items()}
    return result


class _Once:
    """Remembers the last clip's motion. A failure is not remembered: it is met again."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._clip: TestClip | None = None
        self._motion: CameraMotion | None = None

    def __call__(self, clip: TestClip) -> CameraMotion:
        if self._motion is None or self._clip is not clip:
            self._motion = self._method(clip)
            self._clip = clip
        return self._motion


def _given(method: Method, give: Give, body) -> Method:
    return lambda clip: method(give(clip, body))


def _resized(method: Method, body) -> Method:
    """What a user's own knowledge of the height makes of the result."""
    return lambda clip: resize(method(clip), body, float(body.height(clip.betas)))


def _corrected(method: Method, correct: Correct) -> Method:
    return lambda clip: correct(method(clip), clip)
