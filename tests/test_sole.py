"""The underside of the shipped body's feet against all its vertices."""

import numpy as np
import pytest
import torch
from motion_maker import rodrigues
from test_world import BODY

from core.body import load_body
from core.recover.chain import pose_chain, shape_chain
from core.skeleton import JOINT_NAMES
from core.sole import build_sole_chain, foot_lengths, foot_vertices, sole_heights


@pytest.fixture(scope="module")
def body():
    return load_body()


def test_heights_and_lengths_of_the_stick_body():
    # heels lie level with the toes, which are the lowest points: 0.06 + 0.02 under the ankle, against 0.06
    np.testing.assert_allclose(sole_heights(BODY, np.zeros(16)), [0.02, 0.0, 0.02, 0.0], atol=1e-9)
    # the toe is 0.12 + 0.08 ahead of the ankle and 0.02 outside it, the heel 0.05 behind
    np.testing.assert_allclose(foot_lengths(BODY, np.zeros(16)), np.hypot(0.25, 0.02), atol=1e-9)


def test_the_lowest_chosen_vertex_is_the_foot_s_lowest_however_it_is_turned(body):
    """All vertices by the body's own skinning, 60 poses of another shape."""
    generator = np.random.default_rng(0)
    vectors = np.zeros((60, 24, 3))
    vectors[:, 0, 0] = generator.uniform(-1.2, 1.2, 60)
    for side in ("left", "right"):
        vectors[:, JOINT_NAMES.index(f"{side}_knee"), 0] = generator.uniform(0, 1.2, 60)
        vectors[:, JOINT_NAMES.index(f"{side}_ankle")] = generator.uniform(-0.4, 0.4, (60, 3))
    rotmats, betas = torch.from_numpy(rodrigues(vectors)).float(), torch.tensor([1.0, -1, 0.5, *[0] * 13])
    chain, feet = build_sole_chain(body)
    points = pose_chain(shape_chain(chain, betas.double()), rotmats.double(), torch.zeros(60, 3).double()).points[
        :, 25:
    ]
    vertices = body.skin(rotmats, betas, torch.zeros(60, 3))[0]
    for foot, ids in enumerate(foot_vertices(body)):
        lowest = vertices[:, torch.from_numpy(ids), 1].amin(1)
        chosen = points[:, feet == foot, 1].amin(1)
        assert (chosen - lowest).max() < 0.005 and (chosen - lowest).min() > -1e-5
    assert len(feet) < 100


def test_the_first_points_are_the_keypoints(body):
    rotmats = torch.from_numpy(rodrigues(np.random.default_rng(1).normal(0, 0.3, (2, 24, 3)))).float()
    betas, trans = torch.zeros(16), torch.tensor([[0.1, 0.2, 3.0], [0, 0, 2]])
    chain, _ = build_sole_chain(body)
    points = pose_chain(shape_chain(chain, betas.double()), rotmats.double(), trans.double()).points
    np.testing.assert_allclose(points[:, :25].numpy(), body.keypoints(rotmats, betas, trans).numpy(), atol=1e-5)
