"""core.perception.heat against a literal loop, and on maps whose numbers are known."""

from __future__ import annotations

import math

import numpy as np
import torch

from core.perception.heat import HEAT_FIELDS, NEIGHBOURHOOD, read_heat


def read_literally(point: np.ndarray, logits: np.ndarray) -> list[float]:
    """One map, cell by cell, float64."""
    height, width = logits.shape
    heat = [[1 / (1 + math.exp(-float(v))) for v in row] for row in logits]
    cells = [(r, c) for r in range(height) for c in range(width)]
    top = max(cells, key=lambda rc: heat[rc[0]][rc[1]])
    where = {rc: ((rc[1] + 0.5) / width, (rc[0] + 0.5) / height) for rc in cells}
    mass = sum(heat[r][c] ** 2 for r, c in cells)
    middle = [sum(heat[r][c] ** 2 * where[r, c][i] for r, c in cells) / mass for i in (0, 1)]
    spread = math.sqrt(sum(heat[r][c] ** 2 * math.dist(where[r, c], middle) ** 2 for r, c in cells) / mass)
    far = [heat[r][c] for r, c in cells if (r - top[0]) ** 2 + (c - top[1]) ** 2 > NEIGHBOURHOOD**2]
    column = min(max(math.floor(point[0] * width), 0), width - 1)
    row = min(max(math.floor(point[1] * height), 0), height - 1)
    peak = heat[top[0]][top[1]]
    return [peak, heat[row][column], max(far), spread, math.dist(point, where[top]), math.dist(point, middle)]


def test_equals_the_literal_loop():
    rng = np.random.default_rng(3)
    logits = rng.normal(-3, 2, (2, 4, 20, 24))
    points = rng.uniform(-0.2, 1.2, (2, 4, 2))
    logits[0, 0, 0, 0] = logits[0, 1, 19, 23] = 9.0  # peaks in corners
    ours = read_heat(torch.from_numpy(points), torch.from_numpy(logits))
    theirs = [[read_literally(points[b, p], logits[b, p]) for p in range(4)] for b in range(2)]
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_two_blobs():
    """A blob of deviation 2 cells at the point, a fainter one a quarter of the map to the right."""
    y, x = np.mgrid[0:64, 0:64] + 0.5

    def blob(column: float, deviation: float) -> np.ndarray:
        return np.exp(-((x - column) ** 2 + (y - 32.5) ** 2) / (2 * deviation**2))

    for faint in (0.0, 0.3):
        heat = np.clip(0.9 * blob(24.5, 2.0) + faint * blob(40.5, 2.0), 1e-7, 1 - 1e-7)
        logits = torch.from_numpy(np.log(heat / (1 - heat)))[None, None]
        point = torch.tensor([[[24.5 / 64, 32.5 / 64]]])
        got = dict(zip(HEAT_FIELDS, read_heat(point, logits)[0, 0].tolist()))
        assert abs(got["peak"] - 0.9) < 1e-3 and abs(got["here"] - 0.9) < 1e-3 and got["apart"] < 1e-6
        # a Gaussian's square has variance sigma^2 / 2 along each axis.
        # Two of them, of weights 0.81 and faint^2, lie 16 cells apart.
        share = faint**2 / (0.81 + faint**2)
        np.testing.assert_allclose(got["aside"], share * 16 / 64, atol=1e-3)
        np.testing.assert_allclose(got["spread"], math.sqrt(4 + share * (1 - share) * 256) / 64, rtol=0.02)
        np.testing.assert_allclose(got["elsewhere"], max(faint, 0.9 * math.exp(-26 / 8)), atol=0.01)
