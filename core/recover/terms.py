"""The terms of the fitting energy, each with its gradient and Gauss-Newton matrix.

Energy of N frames, a sum of squares divided by variances (so every `sigma` is in the unit of its residual):

    image       distance of projected keypoints from the detector's, in metres at the person's depth, Geman-McClure
    direction   direction between pairs of keypoints against the detector's 3D landmarks, Geman-McClure
    planting    speed of heels and toes that stand still in the picture, Geman-McClure
    balance     trunk over feet in depth, where one camera sees least, Geman-McClure
    prior       squared Mahalanobis distance of the joint rotations from everyday motion, Cauchy
    straight    knees that are nearly straight, Geman-McClure
    limits      rotation beyond what a joint can do (limits.py)
    smoothness  angular acceleration and velocity of each joint, acceleration of the root, from the frames' times

Unknowns per frame: for each active joint a rotation d with R <- R exp(d), then the translation; D in all. A step is
computed by the caller from `Equations`. N frames, K keypoints, M active joints, P pairs; float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.recover.chain import ACTIVE, POSE_JOINTS, Posed
from core.recover.limits import AXES, excess_over_limits
from core.rotation import matrix_to_axis_angle
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES

_PAIRS = (
    *((f"{s}_{a}", f"{s}_{b}") for s in ("left", "right") for a, b in (
        ("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"), ("hip", "shoulder"),
        ("ankle", "toe"), ("heel", "toe"), ("wrist", "index"), ("wrist", "pinky"), ("ear", "shoulder"),
    )),
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("left_ear", "right_ear"),
    ("left_ear", "nose"), ("right_ear", "nose"), ("left_pinky", "left_index"), ("right_pinky", "right_index"),
)  # fmt: skip
FEET = tuple(KEYPOINT_NAMES.index(f"{side}_{name}") for side in ("left", "right") for name in ("heel", "toe"))
PAIRS = tuple((KEYPOINT_NAMES.index(a), KEYPOINT_NAMES.index(b)) for a, b in _PAIRS)

KNEES = [POSE_JOINTS.index(JOINT_NAMES.index(f"{side}_knee")) for side in ("left", "right")]
STRAIGHT_KNEE = 0.1
"""rad of flexion of a leg one stands on."""
REFERENCE_STEP = 1 / 30
"""Smoothness is an integral over time divided by this step: at 30 frames per second, a plain sum over frames."""


@dataclass(frozen=True)
class Sigmas:
    """How far each residual may be off, one standard deviation; math.inf leaves a term out."""

    image: float = 0.03
    """m at the person's depth; includes that neighbouring frames err together."""
    image_robust: float = 0.07
    """m: beyond this a keypoint is disbelieved."""
    direction: tuple[float, float, float] = (0.5, 0.5, 0.6)
    """Unit vectors' x, y, z."""
    direction_robust: float = 2.0
    """Standard deviations at which a direction is disbelieved."""
    planting: float = 0.15
    """m/s of a standing foot."""
    planting_robust: float = 1.0
    balance: float = 0.1
    """m of the trunk before or behind the ankles."""
    balance_robust: float = 0.25
    prior: float = 1.6
    """How much wider than in the prior rotations are spread."""
    prior_robust: float = 60.0
    """Squared Mahalanobis distance that counts half."""
    limit: float = 0.06
    """rad."""
    straight: float = 0.3
    """rad of knee flexion from STRAIGHT_KNEE."""
    straight_robust: float = 0.5
    root_acceleration: tuple[float, float, float] = (5.0, 5.0, 0.6)
    """m/s^2; depth last."""
    angular_velocity: float = 12.0
    """rad/s."""
    angular_acceleration: dict = field(
        default_factory=lambda: {
            "pelvis": 20.0, "spine": 15.0, "neck": 25.0, "head": 30.0, "collar": 15.0, "hip": 40.0, "knee": 50.0,
            "ankle": 40.0, "shoulder": 50.0, "elbow": 60.0, "wrist": 50.0,
        }
    )  # fmt: skip
    """rad/s^2 by part of the body."""


@dataclass
class Equations:
    """Gauss-Newton equations: energy = cost + gradient . x + x H x / 2 near the current motion."""

    cost: Tensor
    """[N] energy by frame."""
    gradient: Tensor
    """[N, D]."""
    diagonal: Tensor
    """[N, D, D]."""
    next1: Tensor
    """[N, M + 1, 3, 3] coupling of each joint (and the translation, last) to the same joint one frame on."""
    next2: Tensor
    """[N, M + 1, 3, 3] two frames on."""
    next1_dense: Tensor
    """[N, D, D] coupling of everything to everything one frame on, added to next1."""


def empty_equations(frame_count: int, D: int = 3 * len(ACTIVE) + 3) -> Equations:
    blocks = len(ACTIVE) + 1

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(frame_count, *shape, dtype=torch.float64)

    return Equations(zeros(), zeros(D), zeros(D, D), zeros(blocks, 3, 3), zeros(blocks, 3, 3), zeros(D, D))


def geman_mcclure(squared: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """rho(r) = r^2 c^2 / (c^2 + r^2) and its weight rho'(r) / (2 r) = (c^2 / (c^2 + r^2))^2, from squared = r^2.

    Geman & McClure, "Statistical methods for tomographic image reconstruction", 1987; written so that rho ~ r^2
    near 0.
    """
    share = scale**2 / (scale**2 + squared)
    return squared * share, share * share


def _add_rows(equations: Equations, residuals: Tensor, jacobian: Tensor, weights: Tensor) -> None:
    """Add sum w r^2 / 2: residuals, weights [N, R], jacobian [N, R, D]."""
    weighted = jacobian * weights[..., None]
    equations.gradient += (weighted.transpose(1, 2) @ residuals[..., None])[..., 0]
    equations.diagonal += weighted.transpose(1, 2) @ jacobian


def image_residuals(points: Tensor, rays: Tensor, depth: Tensor) -> Tensor:
    """points [N, K, 3] m, rays [N, K, 2] = (u - c) / f detected, depth [N] m -> [N, K, 2] m there."""
    return depth[:, None, None] * (points[..., :2] / points[..., 2:].clamp_min(0.1) - rays)


def add_image(equations: Equations, posed: Posed, jacobian: Tensor, evidence, sigmas: Sigmas) -> None:
    """jacobian [N, K, 3, D] of the keypoints."""
    depth, confidence = evidence.depth, evidence.confidence
    residuals = image_residuals(posed.points, evidence.rays, depth)
    rho, weight = geman_mcclure(residuals.square().sum(-1), sigmas.image_robust)
    certainty = confidence / sigmas.image**2
    equations.cost += (certainty * rho).sum(1) / 2
    z = posed.points[..., 2].clamp_min(0.1)
    slope = (posed.points[..., :2] / z[..., None])[..., None]  # [N, K, 2, 1]
    rows = (jacobian[:, :, :2] - slope * jacobian[:, :, 2:]) * (depth[:, None] / z)[..., None, None]
    N, K = confidence.shape
    weights = (certainty * weight)[..., None].expand(N, K, 2).reshape(N, 2 * K)
    _add_rows(equations, residuals.reshape(N, 2 * K), rows.reshape(N, 2 * K, -1), weights)


def add_directions(
    equations: Equations, posed: Posed, jacobian: Tensor, directions: Tensor, confidence: Tensor, sigmas: Sigmas
) -> None:
    """directions [N, P, 3] unit vectors between the detector's landmarks, confidence [N, P] >= 0."""
    first, second = (list(side) for side in zip(*PAIRS))
    difference = posed.points[:, second] - posed.points[:, first]
    length = difference.norm(dim=-1, keepdim=True).clamp_min(0.02)
    unit = difference / length
    residuals = unit - directions
    precision = residuals.new_tensor(sigmas.direction) ** -2
    rho, weight = geman_mcclure((residuals.square() * precision).sum(-1), sigmas.direction_robust)
    equations.cost += (confidence * rho).sum(1) / 2
    rows = (jacobian[:, second] - jacobian[:, first]) / length[..., None]  # [N, P, 3, D]
    rows = rows - unit[..., None] * (unit[..., None, :] @ rows)  # a direction does not change with the length
    N, P = confidence.shape
    weights = (confidence * weight)[..., None] * precision
    _add_rows(equations, residuals.reshape(N, 3 * P), rows.reshape(N, 3 * P, -1), weights.reshape(N, 3 * P))


def add_planting(equations: Equations, posed: Posed, jacobian: Tensor, evidence, sigmas: Sigmas) -> None:
    """Feet that stand still in the picture stand still in depth too: holds the whole body there."""
    if len(evidence) < 2:
        return
    feet = list(FEET)
    points, rows = posed.points[:, feet], jacobian[:, feet]  # [N, 4, 3], [N, 4, 3, D]
    step = (evidence.times[1:] - evidence.times[:-1]).clamp_min(1e-6)[:, None]
    velocity = (points[1:] - points[:-1]) / step[..., None]
    rho, weight = geman_mcclure(velocity.square().sum(-1), sigmas.planting_robust)
    certainty = evidence.planted[:-1] * step / REFERENCE_STEP / sigmas.planting**2
    equations.cost[:-1] += (certainty * rho).sum(1) / 2
    N, D = len(points) - 1, rows.shape[-1]
    weights = ((certainty * weight) / step**2)[..., None].expand(-1, -1, 3).reshape(N, -1, 1)
    residual = (velocity * step[..., None]).reshape(N, -1, 1)
    before, after = (part.reshape(N, -1, D) for part in (rows[:-1], rows[1:]))
    weighted_before, weighted_after = (before * weights).transpose(1, 2), (after * weights).transpose(1, 2)
    equations.gradient[:-1] -= (weighted_before @ residual)[..., 0]
    equations.gradient[1:] += (weighted_after @ residual)[..., 0]
    equations.diagonal[:-1] += weighted_before @ before
    equations.diagonal[1:] += weighted_after @ after
    equations.next1_dense[:-1] -= weighted_before @ after


def _balance_weights() -> Tensor:
    """[K]: middle of hips and shoulders less the middle of the ankles."""
    weights = torch.zeros(len(KEYPOINT_NAMES), dtype=torch.float64)
    for name, weight in (("hip", 0.25), ("shoulder", 0.25), ("ankle", -0.5)):
        for side in ("left", "right"):
            weights[KEYPOINT_NAMES.index(f"{side}_{name}")] = weight
    return weights


BALANCE = _balance_weights()


def add_balance(equations: Equations, posed: Posed, jacobian: Tensor, upright: Tensor, sigmas: Sigmas) -> None:
    """A standing person's trunk is above the feet; in the picture's plane the keypoints tell, in depth this does.

    upright [N, 3]. Robust, so that who lies, sits or dives is left alone.
    """
    forward = torch.tensor([0.0, 0.0, 1.0], dtype=upright.dtype) - upright * upright[:, 2:]
    forward = forward / forward.norm(dim=-1, keepdim=True)
    residual = torch.einsum("k,nkc,nc->n", BALANCE, posed.points, forward)
    rows = torch.einsum("k,nkcd,nc->nd", BALANCE, jacobian, forward)
    rho, weight = geman_mcclure(residual.square(), sigmas.balance_robust)
    equations.cost += rho / sigmas.balance**2 / 2
    _add_rows(equations, residual[:, None], rows[:, None], weight[:, None] / sigmas.balance**2)


def rotation_vectors(rotmats: Tensor) -> tuple[Tensor, Tensor]:
    """Local rotmats [N, J, 3, 3] -> vectors [N, M-1, 3] of the joints in POSE_JOINTS and their slopes [N, M-1, 3, 3].

    The slope is d log(R exp(d)) / d d at d = 0, the inverse right Jacobian of SO(3):
    I + [v]/2 + (1/a^2 - (1 + cos a) / (2 a sin a)) [v]^2 with a = |v| (Chirikjian, "Stochastic Models, Information
    Theory, and Lie Groups", vol. 2, 2012, eq. 10.86).
    """
    vectors = matrix_to_axis_angle(rotmats[:, list(POSE_JOINTS)])
    angle = vectors.norm(dim=-1).clamp_min(1e-9)
    half = angle.clamp(max=torch.pi - 1e-3) / 2
    factor = torch.where(angle < 1e-3, torch.full_like(angle, 1 / 12), (1 - half / torch.tan(half)) / angle**2)
    x, y, z = vectors.unbind(-1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=vectors.dtype)
    return vectors, eye + cross / 2 + factor[..., None, None] * (cross @ cross)


def _add_pose_quadratic(equations: Equations, gradient: Tensor, curvature: Tensor, slopes: Tensor) -> None:
    """Add a quadratic in the rotation vectors: gradient [N, M-1, 3], curvature [N, 3(M-1), 3(M-1)]."""
    N, joints = gradient.shape[:2]
    part = slice(3, 3 + 3 * joints)
    equations.gradient[:, part] += (slopes.transpose(-1, -2) @ gradient[..., None]).reshape(N, -1)
    blocks = curvature.unflatten(2, (joints, 3)).unflatten(1, (joints, 3))  # [N, j, 3, k, 3]
    blocks = torch.einsum("njab,njakc->njbkc", slopes, blocks)
    blocks = torch.einsum("njbkc,nkcd->njbkd", blocks, slopes)
    equations.diagonal[:, part, part] += blocks.reshape(N, 3 * joints, 3 * joints)


def add_prior(equations: Equations, vectors: Tensor, slopes: Tensor, prior, strength: Tensor, sigmas: Sigmas) -> None:
    """prior: prior.PosePrior; strength [N] multiplies it by frame."""
    offset, precision, squared = prior.nearest(vectors.flatten(1))  # [N, 3(M-1)], [N, ., .], [N]
    share = sigmas.prior_robust / (sigmas.prior_robust + squared)  # Cauchy: rho = c log(1 + s / c)
    equations.cost += strength * sigmas.prior_robust * torch.log1p(squared / sigmas.prior_robust) / 2
    curvature = precision * (strength * share)[:, None, None]
    gradient = (curvature @ offset[..., None])[..., 0]
    _add_pose_quadratic(equations, gradient.unflatten(1, (-1, 3)), curvature, slopes)


def add_limits(equations: Equations, vectors: Tensor, slopes: Tensor, sigmas: Sigmas) -> None:
    """A spring from the edge of each joint's range outwards."""
    excess = excess_over_limits(vectors) / sigmas.limit  # [N, M-1, 3]
    equations.cost += excess.square().sum((1, 2)) / 2
    is_out = (excess != 0).to(excess.dtype) / sigmas.limit**2
    gradient = torch.einsum("jab,nja->njb", AXES, excess / sigmas.limit)
    joints = excess.shape[1]
    curvature = excess.new_zeros(len(excess), joints, 3, joints, 3)
    ranks = torch.arange(joints)
    curvature[:, ranks, :, ranks] = torch.einsum("jab,nja,jac->jnbc", AXES, is_out, AXES)
    _add_pose_quadratic(equations, gradient, curvature.reshape(len(excess), 3 * joints, 3 * joints), slopes)


def add_straight(equations: Equations, vectors: Tensor, slopes: Tensor, sigmas: Sigmas) -> None:
    """Pull nearly straight knees straight: the motions behind the prior hold few people who just stand, and a little
    flexion shows little in the picture. On renderings it takes a bias of 7 degrees off straight legs."""
    residual = torch.zeros_like(vectors)
    residual[:, KNEES, 0] = vectors[:, KNEES, 0] - STRAIGHT_KNEE
    rho, weight = geman_mcclure(residual[:, KNEES, 0].square(), sigmas.straight_robust)
    equations.cost += rho.sum(1) / sigmas.straight**2 / 2
    weights = torch.zeros_like(vectors)
    weights[:, KNEES, 0] = weight / sigmas.straight**2
    _add_pose_quadratic(equations, weights * residual, torch.diag_embed(weights.flatten(1)), slopes)


def difference_band(times: Tensor, *, order: int) -> Tensor:
    """Band of Q with x^T Q x = the time integral of |x^(order)|^2 for samples x at `times` [N] s: [N, 3].

    Columns: Q[t, t], Q[t, t+1], Q[t, t+2]. Order 1 or 2, by divided differences, exact for non-uniform times.
    """
    N = len(times)
    band = torch.zeros(N, 3, dtype=times.dtype)
    if N < order + 1:
        return band
    step = (times[1:] - times[:-1]).clamp_min(1e-6)
    if order == 1:
        c = torch.stack([-1 / step, 1 / step])
        span = step
    else:
        h1, h2 = step[:-1], step[1:]
        c = torch.stack([2 / (h1 * (h1 + h2)), -2 / (h1 * h2), 2 / (h2 * (h1 + h2))])
        span = (h1 + h2) / 2
    count = N - order
    for i in range(order + 1):
        for j in range(i, order + 1):
            band[i : i + count, j - i] += c[i] * c[j] * span
    return band


def _apply_band(band: Tensor, x: Tensor) -> Tensor:
    """Q x for x [N, ...]."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    result = band[:, 0].reshape(shape) * x
    for offset in (1, 2):
        if len(x) > offset:
            weight = band[:-offset, offset].reshape(shape)
            result[:-offset] += weight * x[offset:]
            result[offset:] += weight * x[:-offset]
    return result


def part_of(joint: int) -> str:
    """The part of the body whose sigma holds for a joint: left_knee -> knee, spine2 -> spine."""
    return JOINT_NAMES[joint].split("_")[-1].rstrip("123")


def add_smoothness(equations: Equations, rotmats: Tensor, trans: Tensor, times: Tensor, sigmas: Sigmas) -> None:
    """rotmats [N, J, 3, 3] local (root: camera frame), trans [N, 3] m, times [N] s.

    Rotations are compared as matrices: |A - B|^2 / 2 = 4 sin^2(angle / 2) ~ angle^2, which has derivatives in closed
    form: with M = A^T B the coupling block is tr(M) I - M^T.
    """
    index = list(ACTIVE)
    accelerate = difference_band(times, order=2) / REFERENCE_STEP
    move = difference_band(times, order=1) / REFERENCE_STEP
    strength = times.new_tensor([sigmas.angular_acceleration[part_of(j)] ** -2 for j in index])
    bands = accelerate[:, None] * strength[:, None] + move[:, None] * sigmas.angular_velocity**-2  # [N, M, 3]
    bands = bands / 2  # |A - B|^2 counts the angle twice
    R = rotmats[:, index]
    pulled = torch.stack([_apply_band(bands[:, m], R[:, m]) for m in range(len(index))], 1)
    equations.cost += (R * pulled).sum((1, 2, 3)) / 2
    B = R.transpose(-1, -2) @ pulled
    slope = torch.stack([B[..., 2, 1] - B[..., 1, 2], B[..., 0, 2] - B[..., 2, 0], B[..., 1, 0] - B[..., 0, 1]], -1)
    equations.gradient[:, : 3 * len(index)] += slope.flatten(1)
    D = equations.diagonal.shape[1]
    ranks = torch.arange(3 * len(index))
    equations.diagonal[:, ranks, ranks] += 2 * bands[..., 0].repeat_interleave(3, 1)
    eye = torch.eye(3, dtype=R.dtype)
    for offset, target in ((1, equations.next1), (2, equations.next2)):
        if len(times) > offset:
            M = R[:-offset].transpose(-1, -2) @ R[offset:]
            trace = M.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
            block = trace * eye - M.transpose(-1, -2)
            target[:-offset, :-1] += bands[:-offset, :, offset, None, None] * block
    variance = times.new_tensor(sigmas.root_acceleration) ** 2
    ranks = torch.arange(D - 3, D)
    pulled = _apply_band(accelerate, trans) / variance
    equations.cost += (trans * pulled).sum(1) / 2
    equations.gradient[:, ranks] += pulled
    equations.diagonal[:, ranks, ranks] += accelerate[:, :1] / variance
    for offset, target in ((1, equations.next1), (2, equations.next2)):
        target[:, -1] += torch.diag_embed(accelerate[:, offset, None] / variance)


def shape_blocks(posed: Posed, jacobian: Tensor, by_shape: Tensor, evidence, sigmas: Sigmas) -> tuple[Tensor, ...]:
    """Blocks of the Gauss-Newton matrix that the shape adds: (pose x shape [N, D, S], shape x shape [S, S],
    gradient [S]), of the image and direction terms. by_shape [N, K, 3, S]."""
    D, S = jacobian.shape[-1], by_shape.shape[-1]
    joined = empty_equations(len(jacobian), D + S)
    both = torch.cat([jacobian, by_shape], -1)
    add_image(joined, posed, both, evidence, sigmas)
    add_directions(joined, posed, both, evidence.directions, evidence.pair_confidence, sigmas)
    return joined.diagonal[:, :D, D:], joined.diagonal[:, D:, D:].sum(0), joined.gradient[:, D:].sum(0)
