"""Every term's gradient against differences of its energy, and the smoothness band against calculus."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from motion_maker import CAMERA, make_track, make_truth
from stick_body import build_stick_body

from core.recover import limits, terms
from core.recover.anchor import Anchor, add_anchor
from core.recover.chain import ACTIVE, POSE_JOINTS, build_chain, differentiate_points, pose_chain, shape_chain
from core.recover.evidence import read_evidence
from core.recover.prior import load_prior
from core.recover.solve import apply_step
from core.skeleton import JOINT_NAMES

SIGMAS = terms.Sigmas()


@pytest.fixture(scope="module")
def scene():
    body = build_stick_body()
    truth = make_truth(body, 5, seed=2)
    shaped = shape_chain(build_chain(body), torch.zeros(16, dtype=torch.float64))
    evidence = read_evidence(make_track(truth, noise_px=4.0, noise_m=0.03), CAMERA)
    times = torch.tensor([0.0, 0.03, 0.08, 0.1, 0.15], dtype=torch.float64)
    planted = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    evidence = replace(evidence, times=times, planted=planted)
    rotmats, trans = torch.from_numpy(truth.rotmats), torch.from_numpy(truth.trans)
    step = 0.2 * torch.randn(5, 63, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return shaped, evidence, *apply_step(rotmats, trans, step)


def build(scene, name, rotmats, trans):
    shaped, evidence, *_ = scene
    equations = terms.empty_equations(len(trans))
    posed = pose_chain(shaped, rotmats, trans)
    vectors, slopes = terms.rotation_vectors(rotmats)
    if name == "smoothness":
        terms.add_smoothness(equations, rotmats, trans, evidence.times, SIGMAS)
    elif name == "prior":
        terms.add_prior(equations, vectors, slopes, load_prior(), torch.ones(len(trans)).double(), SIGMAS)
    elif name == "limits":
        terms.add_limits(equations, vectors, slopes, SIGMAS)
    elif name == "straight":
        terms.add_straight(equations, vectors, slopes, SIGMAS)
    elif name == "anchor":
        anchor = Anchor(scene[2].flip(0), scene[3].flip(0) + 1, 2.0, place=0.5)
        add_anchor(equations, rotmats, trans, anchor)
    elif name == "planting":
        terms.add_planting(equations, posed, differentiate_points(shaped, posed, ACTIVE), evidence, SIGMAS)
    elif name == "direction":
        jacobian = differentiate_points(shaped, posed, ACTIVE)
        terms.add_directions(equations, posed, jacobian, evidence.directions, evidence.pair_confidence, SIGMAS)
    elif name == "balance":
        terms.add_balance(equations, posed, differentiate_points(shaped, posed, ACTIVE), evidence.upright, SIGMAS)
    return equations


@pytest.mark.parametrize(
    "name", ["smoothness", "prior", "limits", "anchor", "planting", "balance", "direction", "straight"]
)
def test_gradient_is_the_energys(scene, name):
    _, _, rotmats, trans = scene
    gradient = build(scene, name, rotmats, trans).gradient
    assert gradient.abs().max() > 1e-3
    direction = torch.randn(gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    h = 1e-6
    ahead = build(scene, name, *apply_step(rotmats, trans, h * direction)).cost.sum()
    behind = build(scene, name, *apply_step(rotmats, trans, -h * direction)).cost.sum()
    expected = float((ahead - behind) / (2 * h))
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", ["smoothness", "planting"])
def test_coupling_is_the_derivative_of_the_gradient(scene, name):
    """At a motion without movement the Gauss-Newton matrix is the true second derivative."""
    _, _, rotmats, trans = scene
    rotmats, trans = rotmats[2:3].expand(5, -1, -1, -1).clone(), trans[2:3].expand(5, -1).clone()
    equations = build(scene, name, rotmats, trans)
    D, h = equations.gradient.shape[1], 1e-6
    from core.recover.solve import _spread

    couplings = [equations.diagonal, _spread(equations.next1, D) + equations.next1_dense, _spread(equations.next2, D)]
    for column in (4, 20, D - 1):
        step = torch.zeros(5, D, dtype=torch.float64)
        step[2, column] = h
        ahead = build(scene, name, *apply_step(rotmats, trans, step)).gradient
        behind = build(scene, name, *apply_step(rotmats, trans, -step)).gradient
        change = (ahead - behind) / (2 * h)
        scale = change.abs().max()
        for offset in range(3):
            expected = change[2 - offset] / scale
            np.testing.assert_allclose(couplings[offset][2 - offset, :, column] / scale, expected, atol=1e-6)


def test_image_rows_are_the_residuals_derivative(scene):
    shaped, evidence, rotmats, trans = scene
    posed = pose_chain(shaped, rotmats, trans)
    jacobian = differentiate_points(shaped, posed, ACTIVE)
    equations = terms.empty_equations(5)
    loose = replace(SIGMAS, image_robust=1e6, image=1.0)
    evidence = replace(evidence, depth=posed.joints[:, 0, 2])
    terms.add_image(equations, posed, jacobian, evidence, loose)

    def energy(step):
        points = pose_chain(shaped, *apply_step(rotmats, trans, step)).points
        residuals = terms.image_residuals(points, evidence.rays, evidence.depth)
        return float((residuals.square().sum(-1) * evidence.confidence).sum() / 2)

    direction = torch.randn(5, 63, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    expected = (energy(1e-6 * direction) - energy(-1e-6 * direction)) / 2e-6
    assert float((equations.gradient * direction).sum()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("order, signal, expected", [(1, lambda t: 3 * t, 9 * 2.0), (2, lambda t: t * t, 4 * 2.0)])
def test_band_integrates_derivatives_of_uneven_samples(order, signal, expected):
    times = torch.from_numpy(np.cumsum(np.r_[0, np.random.default_rng(0).uniform(0.5, 1.5, 400)]))
    times = times * 2.0 / times[-1]
    band = terms.difference_band(times, order=order)
    x = signal(times)
    energy = float((x * terms._apply_band(band, x)).sum())
    assert energy == pytest.approx(expected, rel=0.01)


def test_band_is_zero_for_few_samples():
    assert not terms.difference_band(torch.tensor([0.0, 0.1]).double(), order=2).any()
    assert not terms.difference_band(torch.tensor([0.0]).double(), order=1).any()


def vector_of(name: str, degrees: tuple[float, float, float]) -> torch.Tensor:
    vectors = torch.zeros(1, len(POSE_JOINTS), 3, dtype=torch.float64)
    vectors[0, POSE_JOINTS.index(JOINT_NAMES.index(name))] = torch.deg2rad(torch.tensor(degrees).double())
    return vectors


@pytest.mark.parametrize(
    "name, degrees, is_free",
    [
        ("left_knee", (90.0, 0.0, 0.0), True),
        ("left_knee", (-20.0, 0.0, 0.0), False),  # bent forwards
        ("right_knee", (60.0, 0.0, 20.0), False),  # bent sideways
        ("left_elbow", (0.0, -81.6, 38.0), True),  # 90 degrees about the hinge
        ("right_elbow", (0.0, 81.6, -38.0), True),
        ("right_elbow", (0.0, -81.6, 38.0), False),  # the left arm's way
        ("left_shoulder", (0.0, 0.0, -80.0), True),  # arm hanging
        ("right_shoulder", (0.0, 0.0, 80.0), True),
        ("left_hip", (-110.0, 0.0, 0.0), True),  # thigh raised
        ("left_hip", (70.0, 0.0, 0.0), False),
    ],
)
def test_limits(name, degrees, is_free):
    assert (float(limits.excess_over_limits(vector_of(name, degrees)).abs().max()) == 0) == is_free


def test_prior_prefers_standing_to_contortion():
    prior = load_prior()
    standing = vector_of("left_shoulder", (0.0, 0.0, -70.0)) + vector_of("right_shoulder", (0.0, 0.0, 70.0))
    twisted = standing + vector_of("spine2", (0.0, 80.0, 0.0)) + vector_of("left_hip", (80.0, 60.0, 0.0))
    distances = [float(prior.nearest(v.flatten(1))[2]) for v in (standing, twisted)]
    assert distances[0] < 60 < distances[1]
