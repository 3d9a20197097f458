"""Normal equations of a motion: dense blocks per frame, sparse coupling to the two frames after it.

Minimising a sum of squares over N frames of D unknowns each leads to H x = b with H block banded: H[t, t] is dense
[D, D], H[t, t+1] and H[t, t+2] come from the smoothness terms only. Two frames at a time make it block tridiagonal,
which a block Cholesky factorisation solves in one sweep forward and one back: O(N D^3), no sparse library.
"""

from __future__ import annotations

import torch
from torch import Tensor


def solve_banded(diagonal: Tensor, next1: Tensor, next2: Tensor, right: Tensor) -> Tensor:
    """Solve H x = right for symmetric positive definite block-pentadiagonal H.

    diagonal [N, D, D]: H[t, t]; next1 [N, D, D]: H[t, t+1] (last unused); next2 [N, D, D]: H[t, t+2] (last two
    unused); right [N, D] or [N, D, M]. Returns x of the shape of `right`.
    Raises torch.linalg.LinAlgError where H is not positive definite.
    """
    N, D = diagonal.shape[:2]
    columns = right if right.ndim == 3 else right[..., None]
    pairs = (N + 1) // 2
    if N % 2:  # pad to whole pairs with an identity frame
        eye = torch.eye(D, dtype=diagonal.dtype)[None]
        diagonal = torch.cat([diagonal, eye])
        next1 = torch.cat([next1[:-1], torch.zeros_like(next1[:1]), torch.zeros_like(next1[:1])])
        next2 = torch.cat([next2[: max(N - 2, 0)], next2.new_zeros(N + 1 - max(N - 2, 0), D, D)])
        columns = torch.cat([columns, torch.zeros_like(columns[:1])])
    even, odd = slice(0, None, 2), slice(1, None, 2)
    upper = torch.cat([diagonal[even], next1[even]], 2)
    lower = torch.cat([next1[even].transpose(1, 2), diagonal[odd]], 2)
    blocks = torch.cat([upper, lower], 1)  # [pairs, 2D, 2D]
    zero = torch.zeros_like(next2[even])
    coupling = torch.cat([torch.cat([next2[even], zero], 2), torch.cat([next1[odd], next2[odd]], 2)], 1)
    columns = columns.reshape(pairs, 2 * D, -1)
    factors, links, partial = [], [], []
    block, column = blocks[0], columns[0]
    for pair in range(pairs):
        factor = torch.linalg.cholesky(block)
        done = torch.linalg.solve_triangular(factor, column, upper=False)
        factors.append(factor)
        partial.append(done)
        if pair + 1 < pairs:
            link = torch.linalg.solve_triangular(factor, coupling[pair], upper=False)  # L^-1 H[p, p+1]
            links.append(link)
            block = blocks[pair + 1] - link.T @ link
            column = columns[pair + 1] - link.T @ done
    solution = [torch.empty(0)] * pairs
    for pair in reversed(range(pairs)):
        rest = partial[pair] if pair + 1 == pairs else partial[pair] - links[pair] @ solution[pair + 1]
        solution[pair] = torch.linalg.solve_triangular(factors[pair].T, rest, upper=True)
    x = torch.stack(solution).reshape(2 * pairs, D, -1)[:N]
    return x if right.ndim == 3 else x[..., 0]
