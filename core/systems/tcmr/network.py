"""TCMR, after Choi et al., "Beyond Static Features for Temporally Consistent 3D Human Pose and Shape from a Video".

Static feature of each frame -> temporal features of t* from all, past and future frames -> SMPL parameters.

S sequences, N frames, B frames asked for, T frames of a window, J joints, K keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from core.models.hyperbolic import CoarseBody
from core.skeleton import SHAPE_COUNT
from core.systems.contract import KEYPOINT_NUMBERS, Estimate, image_features
from core.systems.kinematics import Kinematics
from core.systems.regressor import BodyParameters, IterativeRegressor, mean_parameters
from core.systems.tcmr.encoder import Integration, Temporal, TemporalEncoder, encode_windows

KEYPOINT_GAIN = 5.0
"""Factor on the first weights of the detector's numbers in the static feature. These are some 0.3 in size and 375,
the embedding's 1 and 1,152, so that at first they would count for a thirtieth of its variance."""


@dataclass(frozen=True)
class TCMRConfig:
    """Sizes; the defaults are the paper's."""

    feature_dim: int = 1152
    """Size of the image embedding of a frame, zeros where there is none."""
    window: int = 16
    """T; at least 3, so that there is a past and a future."""
    static_dim: int = 2048
    """Size of the static feature f_i: the paper's is the ResNet's, here a layer makes it from the embedding and the
    detector's keypoints."""
    hidden: int = 1024
    """State size of each GRU: g_past and g_future; g_all has twice as many."""
    common: int = 2048
    """Size of g'_all, g'_past, g'_future and of what the regressor reads."""
    squeezed: int = 256
    """Size to which the shared layer brings each feature for the attention, and of the layers behind it."""
    regressor_hidden: int = 1024
    iterations: int = 3
    """Rounds of the regressor."""
    dropout: float = 0.5
    """Of the regressor."""
    shape_components: int = SHAPE_COUNT

    def __post_init__(self):
        if self.window < 3:
            raise ValueError(f"window must be at least 3, so that frames lie before and after t*, not {self.window}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations}")


class TCMRNet(nn.Module):
    """See the module's docstring. `recover` is inference; `regress_all` gives what training supervises."""

    NAME: ClassVar[str] = "tcmr"

    def __init__(self, config: TCMRConfig, body: CoarseBody):
        super().__init__()
        if config.shape_components != body.joint_shapedirs.shape[-1]:
            raise ValueError(
                f"shape_components is {config.shape_components}, the body has {body.joint_shapedirs.shape[-1]}"
            )
        self.config = config
        self.project = nn.Linear(config.feature_dim + KEYPOINT_NUMBERS, config.static_dim)
        with torch.no_grad():
            self.project.weight[:, config.feature_dim :] *= KEYPOINT_GAIN
        self.encoder = TemporalEncoder(config.static_dim, config.hidden, config.common)
        self.integration = Integration(config.common, config.squeezed)
        self.regressor = IterativeRegressor(
            config.common,
            config.regressor_hidden,
            mean_parameters(body, config.shape_components),
            iterations=config.iterations,
            dropout=config.dropout,
        )
        self.kinematics = Kinematics(body)

    def static_features(self, inputs: Tensor, features: Tensor) -> Tensor:
        """f_i of every frame [S, N, static_dim]; rectified, as the pooled output of a ResNet is."""
        return functional.relu(self.project(image_features(inputs, features)))

    def encode(self, inputs: Tensor, features: Tensor, sequences: Tensor, mids: Tensor) -> Temporal:
        """Temporal features of the frames (sequences [B], mids [B])."""
        static = self.static_features(inputs, features)
        return encode_windows(self.encoder, self.integration, static, sequences, mids, self.config.window)

    def regress_all(self, inputs: Tensor, features: Tensor, sequences: Tensor, mids: Tensor) -> BodyParameters:
        """Theta_past, Theta_future and Theta_int of t*, in this order: each part [3, B, ...]."""
        temporal = self.encode(inputs, features, sequences, mids)
        stacked = torch.cat((temporal.past, temporal.future, temporal.integrated.to(temporal.past.dtype)))
        return BodyParameters(*(part.unflatten(0, (3, -1)) for part in self.regressor(stacked)))

    def recover(
        self, inputs: Tensor, features: Tensor, sequences: Tensor, mids: Tensor, vertex_ids: Tensor | None = None
    ) -> Estimate:
        """See `core.systems.contract.System`: Theta_int only. There are no vertices."""
        theta = self.regressor(self.encode(inputs, features, sequences, mids).integrated)
        rotmats = theta.rotmats
        return Estimate(self.joints(rotmats, theta.betas), rotmats, theta.betas)

    def joints(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """Local rotations [B, J, 3, 3] and shape [B, S] -> joints [B, J, 3], float32 throughout."""
        with torch.autocast(rotmats.device.type, enabled=False):  # bfloat16 metres would be rounded to millimetres
            return self.kinematics(rotmats.float(), betas.float())
