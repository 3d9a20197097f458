"""LMR as section 3.2 of its paper tells it, one frame and one part after the other, float64, GRUs from their formula.

A GRU is a list of layers, each a list of one or two directions (the second runs backwards), each a dictionary with
weight_ih, weight_hh, bias_ih, bias_hh whose rows are the reset, the update and the new gate's.
"""

from __future__ import annotations

import numpy as np

PARTS = (
    ("root", (0, 3, 6, 9)),
    ("head", (12, 15)),
    ("left_arm", (13, 16, 18, 20, 22)),
    ("right_arm", (14, 17, 19, 21, 23)),
    ("left_leg", (1, 4, 7, 10)),
    ("right_leg", (2, 5, 8, 11)),
)
"""Joint numbers of SMPL."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru(layers: list, xs: np.ndarray) -> np.ndarray:
    """xs [T, n] -> states [T, hidden * directions] of the last layer."""
    for directions in layers:
        sides = []
        for number, w in enumerate(directions):
            size = w["weight_hh"].shape[1]
            h, states = np.zeros(size), [None] * len(xs)
            for t in range(len(xs)) if number == 0 else reversed(range(len(xs))):
                a = w["weight_ih"] @ xs[t] + w["bias_ih"]
                b = w["weight_hh"] @ h + w["bias_hh"]
                r = sigmoid(a[:size] + b[:size])
                z = sigmoid(a[size : 2 * size] + b[size : 2 * size])
                n = np.tanh(a[2 * size :] + r * b[2 * size :])
                h = (1 - z) * n + z * h
                states[t] = h
            sides.append(np.stack(states))
        xs = np.concatenate(sides, axis=1)
    return xs


def rotation(six: np.ndarray) -> np.ndarray:
    """First two columns, not yet orthonormal [6] -> rotation matrix [3, 3]."""
    x = six[:3] / np.linalg.norm(six[:3])
    y = six[3:] - (x @ six[3:]) * x
    y = y / np.linalg.norm(y)
    return np.stack((x, y, np.cross(x, y)), axis=1)


def regress(
    Phi: np.ndarray,
    models: dict,
    shape_module: list,
    theta: np.ndarray,
    beta: np.ndarray,
    camera: np.ndarray,
    count: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phi [T, D], start theta [24, 6], beta [C], camera [3] -> rotations [T, 24, 3, 3], betas [T, C], cameras [T, 3].

    models: part or "camera" -> (GRU, W, b). shape_module: (W, b) of its layers, with ReLU between. count: V.
    """
    frames = len(Phi)
    theta = np.repeat(theta[None], frames, axis=0)
    beta, camera = np.repeat(beta[None], frames, axis=0), np.repeat(camera[None], frames, axis=0)

    def residual(name: str, *known: np.ndarray) -> np.ndarray:
        layers, W, b = models[name]
        states = gru(layers, np.concatenate((Phi, *known), axis=1))
        return np.stack([W @ state + b for state in states])

    for _ in range(count):
        updated = theta.copy()
        (root, root_joints), *others = PARTS
        old = theta[:, root_joints].reshape(frames, -1)
        new_root = old + residual(root, old, beta)
        updated[:, root_joints] = new_root.reshape(frames, -1, 6)
        for part, joints in others:
            old = theta[:, joints].reshape(frames, -1)
            updated[:, joints] = (old + residual(part, old, beta, new_root)).reshape(frames, -1, 6)
        theta = updated
        pose = np.concatenate([theta[:, joints].reshape(frames, -1) for _, joints in PARTS], axis=1)
        changes = []
        for t in range(frames):
            x = np.concatenate((Phi[t], pose[t], beta[t]))
            for number, (W, b) in enumerate(shape_module):
                x = W @ (x if number == 0 else np.maximum(x, 0)) + b
            changes.append(x)
        beta = beta + np.stack(changes)
        camera = camera + residual("camera", pose, beta, camera)
    rotations = np.array([[rotation(six) for six in frame] for frame in theta])
    return rotations, beta, camera
