"""The mesh-to-posture (M2P) decoder: one step of the reverse process, from mesh M_k and 2D mesh M_0 to M_{k-1} - M_k.

Paper, section 3.3 and figure 4: [M_k in 3D, M_0 in 2D] per vertex is embedded by a linear layer, the step (sinusoids)
and the vertex (learned) are added, then come transformer layers of attention, a graph residual block (GRB, as in Mesh
Graphormer, Lin et al. 2021) and a feed-forward block, and an MLP head. B meshes, V' coarse vertices, E size of the
embedding, D size of the layers, m keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


def step_sinusoids(k: Tensor, size: int) -> Tensor:
    """Sinusoidal embedding of steps k [B] -> [B, size]: sines, then cosines, of wave lengths 2 pi to 20000 pi."""
    frequencies = 10000.0 ** (-torch.arange(size // 2, device=k.device) / max(1, size // 2 - 1))
    angles = k.float()[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def graph_average(faces: Tensor, count: int) -> Tensor:
    """Mean over each vertex and its neighbours on the edges of `faces` [F', 3]: rows [count, count] that sum to 1."""
    corners = faces.long()
    joined = torch.eye(count)
    for i in range(3):
        a, b = corners[:, i], corners[:, (i + 1) % 3]
        joined[a, b] = joined[b, a] = 1
    return joined / joined.sum(1, keepdim=True)


def patch_average(template: Tensor, count: int) -> Tensor:
    """Means [count, V'] over the vertices nearest to each of `count` vertices far apart (template [V', 3])."""
    chosen = farthest_points(template, count)
    owner = torch.cdist(template, template[chosen]).argmin(1)
    patches = functional.one_hot(owner, count).float().T
    return patches / patches.sum(1, keepdim=True)


def farthest_points(points: Tensor, count: int) -> Tensor:
    """`count` indices of points [n, 3], each the farthest from those before it; the first is the farthest from the
    middle."""
    distance = (points - points.mean(0)).norm(dim=-1)
    chosen = [int(distance.argmax())]
    distance = torch.full_like(distance, torch.inf)
    for _ in range(count - 1):
        distance = distance.minimum((points - points[chosen[-1]]).norm(dim=-1))
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)


class GraphBlock(nn.Module):
    """Graphormer's graph residual block: x + W_2 act(norm(A W act(norm(W_1 act(norm(x)))))), half as wide inside.

    x [B, V', D], A [V', V'] from `graph_average`.
    """

    def __init__(self, dim: int):
        super().__init__()
        half = dim // 2
        self.norm1, self.narrow = nn.LayerNorm(dim), nn.Linear(dim, half)
        self.norm2, self.mix = nn.LayerNorm(half), nn.Linear(half, half)
        self.norm3, self.widen = nn.LayerNorm(half), nn.Linear(half, dim)

    def forward(self, x: Tensor, average: Tensor) -> Tensor:
        y = self.narrow(_act(self.norm1(x)))
        y = average.to(y.dtype) @ self.mix(_act(self.norm2(y)))
        return x + self.widen(_act(self.norm3(y)))


class GraphTransformerLayer(nn.Module):
    """Attention, graph residual block, feed-forward. x [B, V', D] -> [B, V', D]."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} dimensions")
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.graph = GraphBlock(dim)
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor, average: Tensor, patches: Tensor | None) -> Tensor:
        """average [V', V'] of the graph; patches [m, V']: attend to their means, None: to every vertex."""
        normed = self.norm1(x)
        read = normed if patches is None else patches.to(normed.dtype) @ normed
        q = self.query(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, V', D/H]
        k, v = self.key_value(read).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, H, m, D/H] each
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = self.graph(x, average)
        return x + self.narrow(_act(self.widen(self.norm2(x))))


class PostureDecoder(nn.Module):
    """F_alpha(M_k, M_0, k) = M_{k-1} - M_k in metres (equations 5 and 7)."""

    def __init__(
        self,
        template: Tensor,
        faces: Tensor,
        *,
        steps: int,
        embed_dim: int,
        dim: int,
        layers: int,
        heads: int,
        mlp_ratio: float,
        patches: int,
        context_dim: int,
    ):
        """template [V', 3], faces [F', 3] of the coarse mesh. patches: 0 or how many; context_dim: 0 or the size of a
        vector that all vertices are told."""
        super().__init__()
        count = len(template)
        self.steps, self.embed_dim = steps, embed_dim
        self.embed = nn.Linear(5, embed_dim)
        self.position = nn.Parameter(torch.randn(count, embed_dim) * 0.1)
        self.time = nn.Linear(embed_dim, embed_dim)
        self.context = nn.Linear(context_dim, embed_dim) if context_dim else None
        self.project = nn.Linear(embed_dim, dim)
        self.layers = nn.ModuleList(GraphTransformerLayer(dim, heads, mlp_ratio) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.head1, self.head2 = nn.Linear(dim, embed_dim), nn.Linear(embed_dim, 3)
        nn.init.normal_(self.head2.weight, std=1e-3)
        nn.init.zeros_(self.head2.bias)
        self.register_buffer("average", graph_average(faces, count), persistent=False)
        self.register_buffer("patches", patch_average(template, patches) if patches else None, persistent=False)

    def forward(self, M_k: Tensor, M_2d: Tensor, k: Tensor, context: Tensor | None = None) -> Tensor:
        """M_k [B, V', 3] metres, M_2d [B, V', 2] in crop units, k [B] in 1..T, context [B, C] -> [B, V', 3]."""
        with torch.autocast(M_k.device.type, enabled=False):  # bfloat16 metres would be rounded to millimetres
            token = self.time(step_sinusoids(k, self.embed_dim))
            if self.context is not None:
                token = token + self.context(context.float())
            x = self.embed(torch.cat((M_k, M_2d), dim=-1)) + self.position + token[:, None]
        x = self.project(x)
        for layer in self.layers:
            x = layer(x, self.average, self.patches)
        with torch.autocast(M_k.device.type, enabled=False):
            change = self.head2(_act(self.head1(self.norm(x.float()))))
            return change / self.steps  # all steps together come to about the head's own scale


def _act(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")
