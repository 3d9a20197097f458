"""Test clips with truth, as tracks: rendered clips through the real detector, or sequences with modelled noise.

Both come from the mocap subjects of one split; the test split is never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.records import Camera, Track
from core.rotation import quaternion_to_matrix

FPS = 30.0


@dataclass(frozen=True)
class TestClip:
    __test__ = False  # not a test of pytest's

    name: str
    track: Track
    camera: Camera
    """What the methods are told."""
    rotmats: Tensor
    """[N, 24, 3, 3] float32 truth, the root's in the camera frame."""
    betas: Tensor
    """[16]."""
    trans: Tensor
    """[N, 3] metres."""
    true_camera: Camera | None = None
    """What took the pictures; None: `camera` did."""
    hidden: np.ndarray | None = None
    """[N, 25] bool: keypoints that are behind something, or outside the image."""
    up: np.ndarray | None = None
    """[N, 3] unit vectors against gravity, camera frame."""

    @property
    def lens(self) -> Camera:
        """The camera that took the pictures."""
        return self.camera if self.true_camera is None else self.true_camera


def rendered_clips(
    folder: str | Path, *, split: str, limit: int | None = None, told_focal: bool = False
) -> Iterator[TestClip]:
    """Clips of the shards of one split; the methods are told the true focal length only with `told_focal`."""
    from core.synth.format import clips_of, read_shards

    count = 0
    for shard in read_shards(folder, split=split):
        for clip in clips_of(shard):
            if limit is not None and count >= limit:
                return
            count += 1
            n = len(clip["quats"])
            width, height = (int(v) for v in clip["size"])
            presence = clip["presence"].astype(np.float32)
            track = build_track(clip["keypoints"], clip["landmarks3d"], clip["embedding"], presence, n)
            track = replace(track, times=track.times * int(clip["spacing"]))
            focal = float(clip["camera"][0]) if told_focal else None
            yield TestClip(
                name=f"{clip['subject']} {clip['motion']}",
                track=track,
                camera=Camera.from_size(width, height, focal),
                rotmats=quaternion_to_matrix(torch.from_numpy(clip["quats"].astype(np.float32))),
                betas=torch.from_numpy(clip["betas"]),
                trans=torch.from_numpy(clip["trans"]),
                true_camera=Camera(*(float(v) for v in clip["camera"]), width, height),
                hidden=clip["hidden"] > 0,
                up=clip["up"].astype(np.float32),
            )


def generated_clips(
    bank_path: str | Path, body, *, split: str, count: int, frames: int = 96, seed: int = 5, told_focal: bool = False
) -> Iterator[TestClip]:
    """Sequences with modelled detector noise; they carry no image features (zeros)."""
    from core.synth.motion import read_bank
    from core.synth.noise import NoiseModel
    from core.synth.sampler import KeypointSampler

    sampler = KeypointSampler(read_bank(bank_path), body, NoiseModel(), split=split, seed=seed)
    batch = sampler.batch(count, frames=frames)
    for i in range(count):
        width, height = (int(v) for v in batch.size[i])
        features = np.zeros((frames, 1152), np.float16)
        presence = (~batch.is_gap[i]).float().numpy()
        yield TestClip(
            name=f"{split} {i}",
            track=build_track(batch.keypoints[i].numpy(), batch.landmarks3d[i].numpy(), features, presence, frames),
            camera=Camera.from_size(width, height, float(batch.intrinsics[i, 0]) if told_focal else None),
            rotmats=batch.rotmats[i],
            betas=batch.betas[i],
            trans=batch.trans[i],
            true_camera=Camera(*(float(v) for v in batch.intrinsics[i]), width, height),
            up=batch.up[i].numpy(),
        )


def build_track(
    keypoints: np.ndarray, landmarks: np.ndarray, features: np.ndarray, presence: np.ndarray, n: int
) -> Track:
    """A track of n frames from what a detector said of each; presence [n] of 0.1 or less is "not seen"."""
    seen = keypoints[..., 2] > 0.1
    boxes = np.zeros((n, 4), np.float32)
    for i in range(n):
        xy = keypoints[i, seen[i], :2] if seen[i].any() else keypoints[i, :, :2]
        boxes[i] = (*xy.min(0), *xy.max(0))
    return Track(
        person=0,
        frames=np.arange(n, dtype=np.int32),
        times=np.arange(n) / FPS,
        keypoints=np.asarray(keypoints, np.float32),
        landmarks3d=np.asarray(landmarks, np.float32),
        features=np.asarray(features, np.float16),
        confidence=np.where(presence > 0.1, presence, 0).astype(np.float32),
        boxes=boxes,
    )
