"""Mirror images of the lifter's inputs and answers, against a batch mirrored at its source."""

from __future__ import annotations

import torch

from core.body import load_body
from core.models.config import LifterConfig
from core.models.lifter import Lifted, Lifter
from core.models.mirror import lift_both_ways, mirror_inputs, mirror_lifted
from core.rotation import axis_angle_to_matrix, matrix_to_rotation_6d
from core.train.augment import mirror
from core.train.batch import Batch
from core.train.objective import Truth


def made_up(sequences: int = 2, frames: int = 5) -> Batch:
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g)

    keypoints = torch.cat((normal(sequences, frames, 25, 2) * 80 + 300, torch.rand(sequences, frames, 25, 1)), -1)
    return Batch(
        keypoints=keypoints,
        landmarks3d=normal(sequences, frames, 25, 3) * 0.3,
        has_landmarks=torch.ones(sequences, frames),
        features=torch.zeros(sequences, frames, 0),
        size=torch.tensor([[640.0, 480.0]]).expand(sequences, 2),
        focal_px=torch.full((sequences,), 700.0),
        frames=torch.arange(frames).expand(sequences, frames).float(),
        rotmats=axis_angle_to_matrix(normal(sequences, frames, 24, 3)),
        betas=normal(sequences, 16),
    )


def test_inputs_of_the_mirror_image() -> None:
    batch = made_up()
    torch.testing.assert_close(mirror_inputs(batch.inputs()), mirror(batch).inputs(), atol=1e-5, rtol=1e-5)


def test_answers_about_the_mirror_image() -> None:
    body, batch = load_body(), made_up()
    other = mirror(batch)
    seen, seen_other = (
        Lifted(Truth(body, b).joints, matrix_to_rotation_6d(b.rotmats), b.betas, b.betas) for b in (batch, other)
    )
    turned = mirror_lifted(seen)
    torch.testing.assert_close(turned.joints, seen_other.joints, atol=2e-3, rtol=0)  # the body's own symmetry
    torch.testing.assert_close(turned.rotations6d, seen_other.rotations6d, atol=1e-6, rtol=0)


def test_both_ways_is_mirror_consistent() -> None:
    torch.manual_seed(0)
    config = LifterConfig(dim=16, depth=1, heads=2, head_dim=32, joint_dim=4, frame_depth=1, frame_heads=2)
    lifter, batch = Lifter(config).eval(), made_up()
    inputs = batch.inputs()
    with torch.inference_mode():
        one = mirror_lifted(lift_both_ways(lifter, inputs, batch.frames))
        other = lift_both_ways(lifter, mirror_inputs(inputs), batch.frames)
        alone = mirror_lifted(lifter(inputs, batch.frames))
    torch.testing.assert_close(one.joints, other.joints, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.rotations6d, other.rotations6d, atol=1e-5, rtol=0)
    assert (alone.joints - other.joints).abs().max() > 1e-3  # by itself it is not
