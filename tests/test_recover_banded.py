"""The banded solver against a dense one."""

import numpy as np
import pytest
import torch

from core.recover.banded import solve_banded


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("columns", [None, 3])
def test_equals_dense_solve(count, columns):
    D = 5
    generator = np.random.default_rng(count)
    blocks = generator.normal(size=(3, count, D, D))
    H = np.zeros((count, D, count, D))
    for t in range(count):
        H[t, :, t] = blocks[0, t] @ blocks[0, t].T + 40 * np.eye(D)
        for offset in (1, 2):
            if t + offset < count:
                H[t, :, t + offset] = blocks[offset, t]
                H[t + offset, :, t] = blocks[offset, t].T
    right = generator.normal(size=(count, D) if columns is None else (count, D, columns))
    diagonal = np.stack([H[t, :, t] for t in range(count)])
    expected = np.linalg.solve(H.reshape(count * D, -1), right.reshape(count * D, -1)).reshape(right.shape)
    result = solve_banded(*(torch.from_numpy(a) for a in (diagonal, blocks[1], blocks[2], right)))
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_refuses_an_indefinite_matrix():
    with pytest.raises(torch.linalg.LinAlgError):
        solve_banded(-torch.eye(2).double()[None], *torch.zeros(2, 1, 2, 2).double(), torch.ones(1, 2).double())
