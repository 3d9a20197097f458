"""LMR: features of the frames of a window -> pose, shape and camera of each of these frames.

Phi_t of a frame -> `config.iterations` times: the pose by six local recurrent models, then the shape, then the
camera, each told what is already updated and each adding to what was there (section 3.2). Phi_t is made frame by
frame: the paper has no temporal encoder before its recurrent models.

S sequences, N frames of a clip, B = frames asked for, W windows, T frames of a window, D size of Phi, J = 24 joints,
C shape coefficients. Camera axes, metres, relative to the pelvis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from core.models.hyperbolic import CoarseBody, take_frames, window_frames
from core.rotation import rotation_6d_to_matrix
from core.skeleton import SHAPE_COUNT
from core.systems.contract import KEYPOINT_NUMBERS, Estimate, image_features
from core.systems.kinematics import Kinematics
from core.systems.lmr.parts import (
    JOINT_ORDER,
    PARTS,
    ROTATION_SIZE,
    LocalRecurrent,
    ResidualLinear,
    ResidualRecurrent,
)
from core.systems.regressor import mean_parameters

CAMERA_SIZE = 3
"""Numbers of c = [s, t]: `core.systems.regressor.project_weakly`."""


@dataclass(frozen=True)
class LmrConfig:
    """The paper gives no sizes; it takes "exactly the same settings" as VIBE (Kocabas et al. 2020), hence VIBE's."""

    feature_dim: int = 1152
    """Size of a frame's image embedding."""
    feature_size: int = 2048
    """D: what the embedding and the keypoints are brought to, a ResNet-50's 2,048 in the paper."""
    window: int = 16
    """T."""
    hidden: int = 1024
    """Size of each recurrent state."""
    layers: int = 2
    """Of each recurrent model."""
    bidirectional: bool = True
    """CHOICE: the text says only "recurrent". A model of one direction would give the frames of a window without
    those after them. Over 300 steps of a small network both learned alike."""
    shape_hidden: int = 1024
    """Size of the two hidden layers of the module that updates the shape."""
    iterations: int = 3
    """V. With 1, MPJPE was 171 mm in place of 165 after 400 steps of a small network."""
    stride: int = 8
    """Neighbouring windows of a clip begin so many frames apart, each gives its middle `stride` frames. 1 runs a
    window for every frame, of which it is the middle. CHOICE, at inference only: from 1 to 8 MPJPE stayed the same
    and Accel rose from 26.4 to 26.9 mm, with 16 to 29.8 (rendered clips, the network of 400 steps)."""
    shape_components: int = SHAPE_COUNT

    def __post_init__(self):
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations}")
        if not 1 <= self.stride <= self.window:
            raise ValueError(f"stride must be from 1 to the window's {self.window} frames, not {self.stride}")


class Regressed(NamedTuple):
    """Theta_t of every frame of W windows, float32."""

    rotmats: Tensor
    """[W, T, J, 3, 3] local, the root's in the camera frame."""
    betas: Tensor
    """[W, T, C]."""
    cameras: Tensor
    """[W, T, 3] weak perspective onto the crop, which spans -1 to 1."""


class Lmr(nn.Module):
    """See the module's docstring. Calling it gives all frames of windows, `recover` chosen frames of clips."""

    NAME: ClassVar[str] = "lmr"

    def __init__(self, config: LmrConfig, body: CoarseBody):
        super().__init__()
        self.config = config
        d, shape = config.feature_size, config.shape_components
        recurrent = {"hidden": config.hidden, "layers": config.layers, "bidirectional": config.bidirectional}
        # in place of the paper's ResNet-50: the embedding is a late layer of a network, the keypoints are raw numbers
        self.features = nn.Sequential(
            nn.Linear(config.feature_dim + KEYPOINT_NUMBERS, d), nn.GELU(), nn.Linear(d, d), nn.GELU()
        )
        self.pose = LocalRecurrent(d, shape, **recurrent)
        pose_size = ROTATION_SIZE * len(JOINT_ORDER)
        self.shape = nn.Sequential(
            nn.Linear(d + pose_size + shape, config.shape_hidden),
            nn.ReLU(),
            nn.Linear(config.shape_hidden, config.shape_hidden),
            nn.ReLU(),
            ResidualLinear(config.shape_hidden, shape),
        )
        self.camera = ResidualRecurrent(d + pose_size + shape + CAMERA_SIZE, CAMERA_SIZE, **recurrent)
        self.kinematics = Kinematics(body._replace(joint_shapedirs=body.joint_shapedirs[..., :shape]))
        mean = mean_parameters(body, shape)
        for part, joints in PARTS.items():
            self.register_buffer(f"mean_{part}", mean.rotations6d[list(joints)].flatten(), persistent=False)
        self.register_buffer("mean_betas", mean.betas, persistent=False)
        self.register_buffer("camera_init", mean.camera, persistent=False)
        self.register_buffer("joint_order", torch.tensor(JOINT_ORDER), persistent=False)

    def frame_features(self, inputs: Tensor, features: Tensor) -> Tensor:
        """Phi_t [..., D] from inputs [..., K, INPUT_SIZE] and features [..., feature_dim]."""
        return self.features(image_features(inputs, features))

    def forward(self, inputs: Tensor, features: Tensor) -> Regressed:
        """Windows: inputs [W, T, K, INPUT_SIZE], features [W, T, feature_dim]."""
        return self.regress(self.frame_features(inputs, features))

    def regress(self, Phi: Tensor) -> Regressed:
        """Phi [W, T, D], any number of frames; V iterations, each from where the last one ended (section 3.2.2)."""
        frames = Phi.shape[:2]
        theta = {part: getattr(self, f"mean_{part}").expand(*frames, -1) for part in PARTS}
        beta = self.mean_betas.expand(*frames, -1)
        camera = self.camera_init.expand(*frames, -1)
        for _ in range(self.config.iterations):
            theta = self.pose(Phi, theta, beta)
            pose = torch.cat([theta[part] for part in PARTS], dim=-1)  # [W, T, 6J], part after part
            # CHOICE: shape and camera are updated by residuals as the pose is; the text says only "to produce"
            beta = beta + self.shape(torch.cat((Phi, pose, beta), dim=-1))
            camera = camera + self.camera(torch.cat((Phi, pose, beta, camera), dim=-1))
        rotations = pose.unflatten(-1, (-1, ROTATION_SIZE)).index_select(-2, self.joint_order)
        return Regressed(rotation_6d_to_matrix(rotations), beta, camera)

    def recover(
        self, inputs: Tensor, features: Tensor, sequences: Tensor, mids: Tensor, vertex_ids: Tensor | None = None
    ) -> Estimate:
        """See `core.systems.contract.System`; joints, rotations and shape, no vertices.

        A window gives all its frames, so a clip is cut into runs of `stride` frames, and one window with the run in
        its middle serves the whole run. Which window a frame is read from depends on its number alone, not on what
        else is asked for. Only features of frames that are read are projected, and once.
        """
        count, window, stride = inputs.shape[1], self.config.window, self.config.stride
        runs, run_of_frame = torch.unique(sequences * count + mids // stride, return_inverse=True)
        owners = runs // count  # [W]
        centres = runs % count * stride + stride // 2  # [W] t* of the window; may lie beyond the clip's end
        frames = window_frames(count, centres, window)  # [W, T]
        needed, row_of_frame = torch.unique(owners[:, None] * count + frames, return_inverse=True)
        Phi = self.frame_features(inputs.flatten(0, 1)[needed], features.flatten(0, 1)[needed])
        regressed = self.regress(Phi[row_of_frame])
        places = window // 2 + mids - centres[run_of_frame]  # [B]
        rotmats = take_frames(regressed.rotmats, run_of_frame, places)
        betas = take_frames(regressed.betas, run_of_frame, places)
        with torch.autocast(inputs.device.type, enabled=False):  # bfloat16 metres would be rounded to millimetres
            joints = self.kinematics(rotmats, betas)
        return Estimate(joints, rotmats, betas)
