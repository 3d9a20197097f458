"""The part of the landmark network that is tuned, and a backward pass for it that suits a CPU.

The first blocks (the front) stay as they are, so that what they make of a crop is computed once. From block
`FIRST_BLOCK` on 1x1 convolutions and the heads of landmarks and world landmarks learn; depthwise kernels, the heat
maps' and the presence's layers do not (refit.py sees to the last two). Architecture and parameter names are the
network's own.

The forward pass is float32: bfloat16 there moves world landmarks by 77 mm. The backward pass multiplies 1x1
convolutions in bfloat16, where the processor is fast at it, and takes gradients through depthwise ones as the
convolution with the turned kernel.

B crops, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from core.device import has_fast_bfloat16
from core.perception.blazepose import EMBEDDING_SIZE, LANDMARK_COUNT, BlazePoseLandmarks, Convolution
from core.perception.checkpoint import digest

FIRST_BLOCK = 10
FEATURE_SHAPE = (88, 16, 16)
"""Channels, rows, columns of what the front makes of a crop."""
BLOCKS = tuple(f"backbone.blocks.{k}." for k in range(FIRST_BLOCK, 14))
TUNED = (*BLOCKS, "backbone.expand.", "backbone.spatial.", "neck.", "regressor.", "landmark_head.", "world_head.")
"""How the names of the tail's parameters begin."""
REFITTED = ("lateral8.", "presence_head.")
"""Of those that are fitted anew to the tuned tail."""


class TailOutput(NamedTuple):
    landmarks: Tensor
    """[B, 39, 5] as in LandmarkOutput."""
    world: Tensor
    """[B, 39, 3] metres."""
    embedding: Tensor
    """[B, 1152]."""


class _Pointwise(torch.autograd.Function):
    """1x1 convolution x [B, C, H, W], weight [D, C, 1, 1], bias [D] -> [B, D, H, W]; bfloat16 products backward."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.mkldnn_convolution(x, weight, bias, (0, 0), (1, 1), (1, 1), 1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        B, C, H, W = x.shape
        rows = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])  # [BHW, D]
        kind = torch.bfloat16 if has_fast_bfloat16(grad.device.type) else torch.float32
        low, grad_x, grad_weight = rows.to(kind), None, None
        if ctx.needs_input_grad[0]:
            grad_x = (low @ weight[:, :, 0, 0].to(kind)).float().reshape(B, H, W, C).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            grad_weight = (low.T @ x.permute(0, 2, 3, 1).reshape(-1, C).to(kind)).float()[:, :, None, None]
        return grad_x, grad_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution of stride 1 with a fixed odd kernel: float32, gradients for its input alone."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return _depthwise(x, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        return _depthwise(grad, weight.flip(-1, -2), None), None, None


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    reach = weight.shape[-1] // 2
    return torch.mkldnn_convolution(x, weight, bias, (reach, reach), (1, 1), (1, 1), len(weight))


class QuickConvolution(Convolution):
    """The same convolution with the backward pass above. Kernels of depthwise ones get no gradient."""

    @classmethod
    def of(cls, module: Convolution) -> QuickConvolution:
        """One that shares the parameters of `module`."""
        sizes = (module.in_channels, module.out_channels, module.kernel_size[0])
        quick = cls(*sizes, stride=module.stride[0], groups=module.groups, relu=module.relu)
        quick.padding = module.padding
        quick.weight, quick.bias = module.weight, module.bias
        return quick

    def forward(self, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.is_cpu and torch.backends.mkldnn.is_available()):
            return super().forward(x)
        if self.groups == 1 and self.kernel_size == (1, 1):
            y = _Pointwise.apply(x, self.weight, self.bias)
        elif (
            self.groups == self.out_channels and self.stride == (1, 1) and self.padding[0] == self.kernel_size[0] // 2
        ):
            y = _Depthwise.apply(x, self.weight.detach(), self.bias.detach())
        else:
            return super().forward(x)
        return functional.relu6(y, inplace=True) if self.relu else y


def make_trainable(network: BlazePoseLandmarks) -> BlazePoseLandmarks:
    """Give the tail its backward pass, and gradients to what is to learn alone. Returns the network."""
    network.requires_grad_(False)
    for name, module in list(network.named_modules()):
        if not (name + ".").startswith(TUNED):
            continue
        if isinstance(module, Convolution):
            parent, _, child = name.rpartition(".")
            quick = QuickConvolution.of(module)
            network.get_submodule(parent).add_module(child, quick)
            quick.requires_grad_(module.groups == 1)
        elif isinstance(module, nn.Conv2d):
            module.requires_grad_(True)
    return network.eval()


def run_front(network: BlazePoseLandmarks, crops: Tensor) -> Tensor:
    """crops [B, 3, 256, 256] RGB in [0, 1] -> features [B, 88, 16, 16] before block `FIRST_BLOCK`."""
    backbone = network.backbone
    x = backbone.stem_project(backbone.stem_spatial(backbone.stem(crops)))
    for block in backbone.blocks[:FIRST_BLOCK]:
        x = block(x)
    return x


def run_deep(network: BlazePoseLandmarks, features: Tensor) -> Tensor:
    """Features [B, 88, 16, 16] -> the backbone's end [B, 864, 8, 8]."""
    x = features
    for block in network.backbone.blocks[FIRST_BLOCK:]:
        x = block(x)
    return network.backbone.spatial(network.backbone.expand(x))


def run_tail(network: BlazePoseLandmarks, features: Tensor) -> TailOutput:
    """Features [B, 88, 16, 16] -> TailOutput."""
    found = network.regressor(network.neck(run_deep(network, features)))  # [B, 288, 2, 2]
    return TailOutput(
        landmarks=network.landmark_head(found).reshape(-1, LANDMARK_COUNT, 5),
        world=network.world_head(found).reshape(-1, LANDMARK_COUNT, 3),
        embedding=found.permute(0, 2, 3, 1).reshape(-1, EMBEDDING_SIZE),
    )


def tuned_state(network: BlazePoseLandmarks) -> dict[str, Tensor]:
    """Name -> copy of all that tuning and refitting may change."""
    return {k: v.detach().clone() for k, v in network.state_dict().items() if k.startswith((*TUNED, *REFITTED))}


def front_digest(network: BlazePoseLandmarks) -> str:
    """SHA-256 of the front's parameters."""
    front = ("backbone.stem", *(f"backbone.blocks.{k}." for k in range(FIRST_BLOCK)))
    return _digest({k: v for k, v in network.state_dict().items() if k.startswith(front)})


def network_digest(network: BlazePoseLandmarks) -> str:
    """SHA-256 of all parameters."""
    return _digest(network.state_dict())


def _digest(state: dict[str, Tensor]) -> str:
    return digest({name: value.detach().float().numpy() for name, value in state.items()})
