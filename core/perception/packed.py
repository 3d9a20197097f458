"""Convolutions in the form the processor likes best: weights laid out once, ReLU6 in the same pass. CPU, float32.

torch's ordinary convolution lays its weights out anew at every call, which for single images takes as long as a
third of the arithmetic. The operators used here are those that torch's own compiler emits (torch.ops.mkldnn); where
a build of torch lacks them, or they take other arguments, networks stay as they are.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


def pack_convolution(convolution: nn.Conv2d, shape: torch.Size) -> Tensor:
    """The weights of a float32 convolution, laid out for inputs of shape [B, C, h, w]; others are only slower.

    Raises AttributeError or RuntimeError if this torch cannot.
    """
    weight = convolution.weight.detach()
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *_placement(convolution), list(shape))


def convolve_packed(convolution: nn.Conv2d, packed: Tensor, x: Tensor, *, relu6: bool) -> Tensor:
    """x [B, C, h, w] -> what `convolution`, packed by pack_convolution, makes of it, through ReLU6 if asked."""
    after, limits = ("hardtanh", [0.0, 6.0]) if relu6 else ("none", [])
    return torch.ops.mkldnn._convolution_pointwise(
        x, packed, convolution.bias, *_placement(convolution), after, limits, ""
    )


def can_pack() -> bool:
    """True if this torch has the operators and they compute what a convolution does."""
    try:
        if not torch.backends.mkldnn.is_available():
            return False
        with torch.inference_mode():
            trial = nn.Conv2d(8, 8, 3, padding=1)
            trial.weight.copy_(torch.linspace(-1, 1, trial.weight.numel()).view_as(trial.weight))
            image = torch.linspace(-1, 2, 8 * 81).reshape(1, 8, 9, 9).contiguous(memory_format=torch.channels_last)
            found = convolve_packed(trial, pack_convolution(trial, image.shape), image, relu6=True)
            return bool(torch.allclose(found, nn.functional.relu6(trial(image)), atol=1e-4))
    except (AttributeError, RuntimeError, TypeError) as error:
        log.info("convolutions stay as they are: %s", str(error).splitlines()[0])
        return False


def _placement(convolution: nn.Conv2d) -> tuple[list[int], list[int], list[int], int]:
    c = convolution
    return list(c.padding), list(c.stride), list(c.dilation), c.groups
