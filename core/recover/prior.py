"""What everyday poses look like: a Gaussian mixture over the rotation vectors of all joints but the root.

`weights/pose_prior.npz` holds it (core/make/prior.py makes it from motion capture). Of the mixture only the component
that explains a pose best is used, so that the energy stays a sum of squares (Olson & Agarwal, "Inference on networks
of mixtures for robust robot mapping", RSS 2012: max-mixtures).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import SetupError
from core.recover.chain import POSE_JOINTS

PRIOR_FILE = Path(__file__).resolve().parents[2] / "weights" / "pose_prior.npz"
DIMENSION = 3 * len(POSE_JOINTS)


@dataclass(frozen=True)
class PosePrior:
    """C components over D = 3 * len(POSE_JOINTS) numbers, float64."""

    means: Tensor
    """[C, D] rad."""
    precisions: Tensor
    """[C, D, D] rad^-2."""
    penalties: Tensor
    """[C] >= 0, smallest 0: log det covariance - 2 log weight, less its least."""

    def nearest(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """vectors [N, D] rad -> offset from the best component's mean [N, D], its precision [N, D, D] and the squared
        Mahalanobis distance plus penalty [N]."""
        offsets = vectors[:, None] - self.means  # [N, C, D]
        squared = torch.einsum("ncd,cde,nce->nc", offsets, self.precisions, offsets) + self.penalties
        distance, best = squared.min(1)
        return offsets[torch.arange(len(vectors)), best], self.precisions[best], distance


@cache
def load_prior(path: str | None = None) -> PosePrior:
    """Read the mixture; None is the shipped file. Raises SetupError where it is missing or of another layout."""
    source = Path(path) if path else PRIOR_FILE
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            weights, means, factors = (archive[name].astype(np.float64) for name in ("weights", "means", "factors"))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SetupError(
            f"The pose prior {source.name} cannot be read ({error}); install the extension again"
        ) from error
    if means.shape != (len(weights), DIMENSION) or factors.shape != (len(weights), DIMENSION, DIMENSION):
        raise SetupError(f"The pose prior {source.name} is for other joints; install the extension again")
    # factors are Cholesky factors of the covariances
    inverse = np.linalg.inv(factors)
    precisions = inverse.transpose(0, 2, 1) @ inverse
    penalties = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1) - 2 * np.log(weights)
    tensors = (torch.from_numpy(a) for a in (means, precisions, penalties - penalties.min()))
    return PosePrior(*tensors)
