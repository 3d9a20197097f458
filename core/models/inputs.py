"""What the networks read from a track: keypoints normalised by the full image and by the crop, depth landmarks.

Pure torch functions with any leading dimensions; used alike in training and at run time, so that both agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

FULL_XY, CROP_XY, CONFIDENCE, LANDMARK_XYZ, HAS_LANDMARK, CROP_RAY, CROP_FULL = (
    slice(0, 2),
    slice(2, 4),
    slice(4, 5),
    slice(5, 8),
    slice(8, 9),
    slice(9, 12),
    slice(12, 15),
)
INPUT_SIZE = 15
"""Channels per keypoint: P2D by the full image, by the crop, confidence, landmark, whether there is one, and for
the whole frame the crop's centre and size as a viewing direction and in full-image units."""


@dataclass(frozen=True)
class ImageGeometry:
    """Sizes per clip, broadcastable over frames: width, height and assumed focal length, pixels [..., 1]."""

    width: Tensor
    height: Tensor
    focal_px: Tensor


def normalise_full(keypoints_px: Tensor, geometry: ImageGeometry) -> Tensor:
    """PMCE equation 5: 2p/w - [1, h/w]. [..., K, 2] px -> [..., K, 2]."""
    width, height = geometry.width.unsqueeze(-1), geometry.height.unsqueeze(-1)
    offset = torch.cat((torch.ones_like(width), height / width), dim=-1)
    return 2 * keypoints_px / width - offset


def crop_of(keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Centre [..., 1, 2] and size [..., 1, 1] px of the square around the keypoints [..., K, 3] (x, y, confidence).

    Keypoints of confidence below 0.1 do not count; where none counts, all do.
    """
    xy, seen = keypoints[..., :2], keypoints[..., 2:] > 0.1
    seen = seen | ~seen.any(-2, keepdim=True)
    low = xy.masked_fill(~seen, torch.inf).amin(-2, keepdim=True)
    high = xy.masked_fill(~seen, -torch.inf).amax(-2, keepdim=True)
    size = (high - low).amax(-1, keepdim=True).clamp_min(8.0)
    return (low + high) / 2, size


def view_rotation(centre_px: Tensor, geometry: ImageGeometry) -> Tensor:
    """Least rotation that takes the optical axis to the ray through `centre_px` [..., 2] -> [..., 3, 3].

    A detector that sees a crop judges the body as if its camera looked at the crop's middle; this rotation turns
    what it says to the axes of the real camera.
    """
    middle = torch.cat((geometry.width, geometry.height), dim=-1) / 2
    plane = (centre_px - middle) / geometry.focal_px
    ray = functional.normalize(torch.cat((plane, torch.ones_like(plane[..., :1])), dim=-1), dim=-1)
    x, y, z = ray.unbind(-1)
    k = 1 / (1 + z)  # z > 0: the ray points into the image
    rows = (1 - k * x * x, -k * x * y, x, -k * x * y, 1 - k * y * y, y, -x, -y, z)
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def encode_inputs(keypoints: Tensor, landmarks3d: Tensor, has_landmarks: Tensor, geometry: ImageGeometry) -> Tensor:
    """Network input.

    Args:
        keypoints: [..., K, 3] x px, y px, confidence 0..1 (0 = not seen, then x and y are ignored).
        landmarks3d: [..., K, 3] metres, hip-centred, as the detector gives them: axes of a camera that looks at the
            crop's middle.
        has_landmarks: [...] 1 where landmarks3d may be used, else 0.
        geometry: sizes that broadcast against [..., 1].

    Returns:
        [..., K, INPUT_SIZE] float32.
    """
    confidence = keypoints[..., 2:].clamp(0, 1)
    seen = (confidence > 0).float()
    centre, size = crop_of(keypoints)
    xy = keypoints[..., :2]
    focal = geometry.focal_px.unsqueeze(-1)
    middle = torch.cat((geometry.width, geometry.height), dim=-1).unsqueeze(-2) / 2
    ray = torch.cat(((centre - middle) / focal, size / focal), dim=-1)
    full = torch.cat((normalise_full(centre, geometry), 2 * size / geometry.width.unsqueeze(-1)), dim=-1)
    view = view_rotation(centre.squeeze(-2), geometry)
    landmarks3d = landmarks3d @ view.transpose(-1, -2)
    present = has_landmarks[..., None, None].to(confidence.dtype).expand_as(confidence)
    frame = torch.cat((ray, full), dim=-1).expand(*xy.shape[:-1], 6)
    return torch.cat(
        (
            normalise_full(xy, geometry) * seen,
            2 * (xy - centre) / size * seen,
            confidence,
            landmarks3d * present,
            present,
            frame,
        ),
        dim=-1,
    )
