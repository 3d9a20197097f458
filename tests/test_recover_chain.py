"""The reduced body against plain skinning, and its derivatives against differences."""

import numpy as np
import pytest
import torch
from motion_maker import make_truth, skin_keypoints
from stick_body import build_stick_body

from core.recover.chain import (
    ACTIVE,
    build_chain,
    differentiate_by_shape,
    differentiate_points,
    pose_chain,
    shape_chain,
)
from core.recover.solve import apply_step


@pytest.fixture(scope="module")
def scene():
    body = build_stick_body()
    # smear the weights, so that keypoints mix joints
    generator = torch.Generator().manual_seed(3)
    body.weights = body.weights + 0.3 * torch.rand(body.weights.shape, generator=generator, dtype=torch.float64)
    body.weights = body.weights / body.weights.sum(1, keepdim=True)
    body.keypoint_regressor = body.keypoint_regressor + 0.02
    body.keypoint_regressor = body.keypoint_regressor / body.keypoint_regressor.sum(1, keepdim=True)
    truth = make_truth(body, 4)
    return body, torch.from_numpy(truth.rotmats), torch.from_numpy(truth.trans)


def test_keypoints_equal_skinned_ones(scene):
    body, rotmats, trans = scene
    shaped = shape_chain(build_chain(body), torch.zeros(16, dtype=torch.float64))
    posed = pose_chain(shaped, rotmats, trans)
    joints, points = skin_keypoints(body, rotmats.numpy(), trans.numpy())
    np.testing.assert_allclose(posed.joints, joints, atol=1e-12)
    np.testing.assert_allclose(posed.points, points, atol=1e-12)


def test_shape_moves_keypoints_as_a_reshaped_body_does(scene):
    body, rotmats, trans = scene
    chain = build_chain(body)
    betas = torch.tensor([0.7, -1.2] + [0.0] * 14, dtype=torch.float64)
    posed = pose_chain(shape_chain(chain, betas), rotmats, trans)
    import copy

    reshaped = copy.copy(body)
    reshaped.v_template = body.v_template + body.shapedirs @ betas
    reshaped.joint_template = body.joint_template + body.joint_shapedirs @ betas
    np.testing.assert_allclose(posed.points, skin_keypoints(reshaped, rotmats.numpy(), trans.numpy())[1], atol=1e-12)


def test_pose_derivative(scene):
    body, rotmats, trans = scene
    shaped = shape_chain(build_chain(body), torch.zeros(16, dtype=torch.float64))
    jacobian = differentiate_points(shaped, pose_chain(shaped, rotmats, trans), ACTIVE)
    D, h = jacobian.shape[-1], 1e-6
    for column in range(D):
        step = torch.zeros(len(trans), D, dtype=torch.float64)
        step[:, column] = h
        ahead = pose_chain(shaped, *apply_step(rotmats, trans, step)).points
        behind = pose_chain(shaped, *apply_step(rotmats, trans, -step)).points
        np.testing.assert_allclose(jacobian[..., column], (ahead - behind) / (2 * h), atol=1e-8)


def test_shape_derivative(scene):
    body, rotmats, trans = scene
    chain = build_chain(body)
    betas = torch.full((16,), 0.3, dtype=torch.float64)
    jacobian = differentiate_by_shape(chain, pose_chain(shape_chain(chain, betas), rotmats, trans))
    for s in range(16):
        step = torch.zeros(16, dtype=torch.float64)
        step[s] = 1.0  # points are linear in the shape
        moved = pose_chain(shape_chain(chain, betas + step), rotmats, trans).points
        still = pose_chain(shape_chain(chain, betas), rotmats, trans).points
        np.testing.assert_allclose(jacobian[..., s], moved - still, atol=1e-12)
