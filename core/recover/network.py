"""From what a network makes of a track to a motion: rotations and shape from its meshes or its own, root, refinement.

1. left and right settled where the detector exchanged them (readings)
2. the network reads the whole track and gives, in chunks, joints and rotations, meshes, or all of them; on a CPU a
   slow mesh only of every eighth frame
3. one shape from frames spread over the first chunk's meshes and the network's own guess
4. rotations from the meshes (mesh_fit), started from its rotations; between meshes what they change of those
   is interpolated (between). Without meshes the network's own
5. root by least squares against the 2D keypoints (root), each chunk seen with its neighbours
6. where asked for, the motion moved onto the 2D keypoints (refine)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from core.body import Body, load_body
from core.errors import Cancelled
from core.models.clip import Chunk
from core.protocol import REFINES_BY_DEFAULT
from core.records import Camera, CameraMotion, Track
from core.recover.between import carry_between
from core.recover.evidence import read_belief, read_keypoints
from core.recover.fit import ignore, never
from core.recover.mesh_fit import fit_rotations, fit_shape, spread_vertices
from core.recover.readings import Settled, settle_readings
from core.recover.refine import carry_on
from core.recover.refine import refine as refine_motion
from core.recover.root import place_root
from core.skeleton import PARENTS, SHAPE_COUNT

CHUNK = 32
MESH_EVERY = {"cpu": 8}
"""Frames from mesh to mesh by device; on others every frame has one."""
FITTED_VERTICES = 800
FIT_ROUNDS = 2
"""Of fitting rotations: they start from the network's own, and more bring nothing."""
UNGUIDED_ROUNDS = 12
"""Where the network gives none."""
SHAPE_FRAMES = 24
SHAPE_SHARE = 0.3
"""Of the meshes' shape, the rest being the average body's. Meshes average over poses that cannot be told apart, which
makes limbs short and people small: on rendered validation clips the whole of it was off by 124 mm of height and 2.5 %
of proportions, this share by 85 and 1.8 (the average body: 77 and 1.9), with joints no farther off."""
CONTEXT = 96
"""Frames before a chunk that its root is solved with."""
NETWORK_SHARE = 0.7
"""Of the time that network and refinement take together, on a CPU."""


class ReadClip(Protocol):
    """A network over a track: its shape [S] (None where it has none) and its chunks, whose meshes have only the
    vertices asked for. Raises Cancelled where asked to stop before the first chunk."""

    def __call__(
        self,
        net: nn.Module,
        track: Track,
        camera: Camera,
        *,
        device: str,
        chunk: int,
        every: int,
        vertex_ids: Tensor,
        doubted: np.ndarray,
        should_stop: Callable[[], bool],
    ) -> tuple[Tensor | None, Iterator[Chunk]]: ...


def recover_with(
    read_clip: ReadClip,
    shipped: Callable[[], nn.Module],
    track: Track,
    camera: Camera,
    body,
    *,
    device: str = "cpu",
    on_frames: Callable[[CameraMotion], None] = ignore,
    should_stop: Callable[[], bool] = never,
    on_progress: Callable[[int, int], None] = ignore,
    net: nn.Module | None = None,
    refine: bool = REFINES_BY_DEFAULT,
    on_rough: Callable[[CameraMotion], None] = ignore,
    known: CameraMotion | None = None,
) -> CameraMotion:
    """Recover one track by a network, `net` or else the shipped one; see `core.recover`.

    The network speaks the shipped body; for another body its rotations are kept, and the shape is the one whose
    bones are as long. With `refine` on_rough gets the network's frames and on_frames what they become; stopped before
    all are refined, the result goes on with the network's. Without it `known` is not used: the network starts over.
    """
    read = partial(read_clip, (net or shipped()).to(device))
    settled = settle_readings(track)
    if not refine:
        return _by_network(read, settled, camera, body, device, on_frames, should_stop, on_progress)
    total = len(track)

    def on_network(done: int, _: int) -> None:
        on_progress(round(NETWORK_SHARE * done), total)

    def on_refined(done: int, _: int) -> None:
        on_progress(round(NETWORK_SHARE * total + (1 - NETWORK_SHARE) * done), total)

    motion = _by_network(read, settled, camera, body, device, on_rough, should_stop, on_network)
    if len(motion) < total:
        return motion
    refined = refine_motion(
        settled.track,
        camera,
        body,
        motion,
        on_frames=on_frames,
        should_stop=should_stop,
        on_progress=on_refined,
        known=known,
    )
    return carry_on(refined, motion, track.times)


def _by_network(
    read: Callable[..., tuple[Tensor | None, Iterator[Chunk]]],
    settled: Settled,
    camera: Camera,
    body,
    device: str,
    on_frames: Callable[[CameraMotion], None],
    should_stop: Callable[[], bool],
    on_progress: Callable[[int, int], None],
) -> CameraMotion:
    """Steps 2 to 5. read: a `ReadClip` of its network."""
    track, own = settled.track, own_body().to(device)
    ids = _fitted_vertices().to(device)
    try:
        own_betas, chunks = read(
            track,
            camera,
            device=device,
            chunk=CHUNK,
            every=MESH_EVERY.get(device, 1),
            vertex_ids=ids,
            doubted=settled.doubted,
            should_stop=should_stop,
        )
    except Cancelled:
        return _join([], track, None)
    body = body.to("cpu")
    placer = _RootPlacer(track, camera, body)
    betas = target_betas = None
    parts: list[CameraMotion] = []

    def emit(motion: CameraMotion) -> None:
        parts.append(motion)
        on_frames(motion)
        on_progress(sum(len(p.frames) for p in parts), len(track))

    for chunk in chunks:
        if should_stop():
            break
        start = _start_rotations(chunk)
        if betas is None:
            betas = _shape(own, chunk, ids, start, own_betas)
            target_betas = betas if _is_same_body(own, body) else match_bones(own, body, betas)
        rotmats = start
        if chunk.vertices is not None:
            fitted = _fit(own, chunk, chunk.vertices, ids, betas, start, chunk.meshed)
            rotmats = carry_between(fitted, chunk.meshed, start)
        ready = placer.add(rotmats.cpu(), target_betas.cpu(), is_last=chunk.start + CHUNK >= len(track))
        for motion in ready:
            emit(motion)
    return _join(parts, track, betas)


def match_bones(own: Body, body: Body, betas: Tensor) -> Tensor:
    """Shape [S] of `body` whose rest bones are as long as those of `own` at `betas`, by ridge least squares. CPU."""
    wanted = _bone_vectors(own.rest_joints(betas)).cpu()
    base, units = body.rest_joints(torch.zeros(SHAPE_COUNT)), body.rest_joints(torch.eye(SHAPE_COUNT))
    columns = [_bone_vectors(joints) - _bone_vectors(base) for joints in units]
    A = torch.stack(columns, -1).flatten(0, -2)
    normal = A.T @ A + 1e-6 * torch.eye(SHAPE_COUNT)
    return torch.linalg.solve(normal, A.T @ (wanted - _bone_vectors(base)).flatten())


def _bone_vectors(joints: Tensor) -> Tensor:
    return joints[1:] - joints[list(PARENTS[1:])]


def _is_same_body(own, body) -> bool:
    return body.vertex_count == own.vertex_count and bool(torch.allclose(own.v_template.cpu(), body.v_template.cpu()))


@lru_cache(maxsize=1)
def own_body() -> Body:
    """The body that the shipped networks were trained with."""
    return load_body()


@lru_cache(maxsize=1)
def _fitted_vertices() -> Tensor:
    return spread_vertices(own_body().v_template.cpu(), FITTED_VERTICES)


def _start_rotations(chunk: Chunk) -> Tensor:
    if chunk.rotmats is not None:
        return chunk.rotmats
    start = torch.eye(3).repeat(len(chunk.joints), 24, 1, 1)
    start[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # upright, facing the camera
    return start.to(chunk.joints)


def _fit(own, chunk: Chunk, vertices: Tensor, ids: Tensor, betas: Tensor, start: Tensor, frames: Tensor) -> Tensor:
    """Rotations [m, J, 3, 3] of a chunk's frames [m] from their meshes [m, n, 3]; the network's joints lead the way
    where it gives no rotations."""
    if chunk.rotmats is not None:
        return fit_rotations(own, vertices, ids, betas, start[frames], rounds=FIT_ROUNDS)
    joints = chunk.joints[frames]
    return fit_rotations(own, vertices, ids, betas, start[frames], rounds=UNGUIDED_ROUNDS, joints=joints)


def _shape(own, chunk: Chunk, ids: Tensor, start: Tensor, own_betas: Tensor | None) -> Tensor:
    """One shape: the meshes' least-squares shape, held near the network's own over the whole clip, and drawn to the
    average body."""
    guess = torch.zeros(SHAPE_COUNT, device=start.device) if own_betas is None else own_betas
    if chunk.vertices is None:
        return SHAPE_SHARE * guess
    count = len(chunk.meshed)
    few = torch.linspace(0, count - 1, min(SHAPE_FRAMES, count), device=start.device).long()
    vertices = chunk.vertices[few]
    rotmats = _fit(own, chunk, vertices, ids, guess, start, chunk.meshed[few])
    return SHAPE_SHARE * fit_shape(own, vertices, ids, rotmats, start=guess)


class _RootPlacer:
    """Places chunks one behind the network, so that every frame's depth is solved with frames on both sides."""

    def __init__(self, track: Track, camera: Camera, body):
        self.track, self.body = track, body
        keypoints, self.rays = read_keypoints(track, camera)
        self.confidence = read_belief(keypoints, track)
        self.times = torch.from_numpy(track.times.astype(np.float64))
        self.rotmats = torch.zeros(0, 24, 3, 3)
        self.points = torch.zeros(0, 25, 3, dtype=torch.float64)
        self.emitted = 0

    def add(self, rotmats: Tensor, betas: Tensor, *, is_last: bool) -> list[CameraMotion]:
        """Take the next frames' rotations [n, 24, 3, 3]; return the motion of those that can be placed now."""
        ready = len(self.rotmats)
        keypoints = self.body.keypoints(rotmats, betas, torch.zeros(3))
        self.rotmats = torch.cat((self.rotmats, rotmats))
        self.points = torch.cat((self.points, keypoints.double()))
        end = len(self.rotmats) if is_last else ready
        if end == self.emitted:
            return []
        span = slice(max(0, self.emitted - CONTEXT), len(self.rotmats))
        trans = place_root(self.points[span], self.rays[span], self.confidence[span], self.times[span])
        frames = slice(self.emitted, end)
        motion = CameraMotion(
            person=self.track.person,
            frames=self.track.frames[frames],
            rotmats=self.rotmats[frames].numpy().astype(np.float32),
            trans=trans[self.emitted - span.start : end - span.start].numpy().astype(np.float32),
            betas=betas.numpy().astype(np.float32),
            confidence=self.track.confidence[frames],
        )
        self.emitted = end
        return [motion]


def _join(parts: list[CameraMotion], track: Track, betas: Tensor | None) -> CameraMotion:
    done = sum(len(p.frames) for p in parts)
    return CameraMotion(
        person=track.person,
        frames=track.frames[:done],
        rotmats=np.concatenate([p.rotmats for p in parts] or [np.zeros((0, 24, 3, 3), np.float32)]),
        trans=np.concatenate([p.trans for p in parts] or [np.zeros((0, 3), np.float32)]),
        betas=parts[0].betas if parts else np.zeros(SHAPE_COUNT, np.float32),
        confidence=track.confidence[:done],
    )
