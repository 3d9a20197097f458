"""BlazePose as torch modules: the person detector and the landmark network. Architecture only.

Both networks are Google's (Apache-2.0, see weights/README.md): a MobileNetV2-like backbone of inverted residuals
whose batch norms are folded into the convolutions, a small feature pyramid, and heads. The tables below were read
off the published TFLite graphs; `core.make.perception` fills the weights and tests hold both networks to the
TFLite interpreter. Decoding of the outputs is in `anchors.py`, crops in `roi.py`.

B images; sizes in pixels; images are RGB float in [0, 1], channels first (either memory format).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.perception.packed import can_pack, convolve_packed, pack_convolution

DETECTOR_SIZE = 224
CROP_SIZE = 256
LANDMARK_COUNT = 39
"""33 body landmarks, 2 auxiliary ones (hip centre and scale point, indices 33 and 34), 4 unused."""
EMBEDDING_SIZE = 1152
ANCHOR_COUNT = 2254
HEATMAP_SIZE = 64


@dataclass(frozen=True)
class Bottleneck:
    """One inverted residual: 1x1 to `hidden`, depthwise `kernel`, 1x1 to `out`. `skip` names its input as a skip."""

    hidden: int
    out: int
    kernel: int
    stride: int = 1
    skip: str = ""


LANDMARK_BACKBONE = (
    Bottleneck(64, 24, 3, stride=2, skip="at128"),
    Bottleneck(144, 24, 3),
    Bottleneck(144, 32, 5, stride=2, skip="at64"),
    Bottleneck(192, 32, 5),
    Bottleneck(192, 64, 3, stride=2, skip="at32"),
    Bottleneck(384, 64, 3),
    Bottleneck(384, 64, 3),
    Bottleneck(384, 88, 5),
    Bottleneck(528, 88, 5),
    Bottleneck(528, 88, 5),
    Bottleneck(528, 144, 5, stride=2, skip="at16"),
    Bottleneck(864, 144, 5),
    Bottleneck(864, 144, 5),
    Bottleneck(864, 144, 5),
)
DETECTOR_BACKBONE = (
    Bottleneck(64, 24, 3, stride=2),
    Bottleneck(144, 24, 3),
    Bottleneck(144, 40, 5, stride=2),
    Bottleneck(240, 40, 5),
    Bottleneck(240, 80, 3, stride=2, skip="at28"),
    Bottleneck(480, 80, 3),
    Bottleneck(480, 80, 3),
    Bottleneck(480, 112, 5),
    Bottleneck(672, 112, 5),
    Bottleneck(672, 112, 5),
    Bottleneck(672, 192, 5, stride=2, skip="at14"),
    Bottleneck(1152, 192, 5),
    Bottleneck(1152, 192, 5),
    Bottleneck(1152, 192, 5),
)


class Convolution(nn.Conv2d):
    """Convolution with bias and an optional ReLU6. Kernels with stride 2 pad by kernel // 2 on every side."""

    is_packing = False
    """The weights are laid out for the first image's size and kept (packed.py): float32, CPU, inference mode."""
    packed: Tensor | None = None

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, relu: bool):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        is_plain = x.is_cpu and x.dtype == torch.float32
        if is_plain and self.is_packing and torch.is_inference_mode_enabled():
            if self.packed is None:
                self.packed = pack_convolution(self, x.shape)
            return convolve_packed(self, self.packed, x, relu6=self.relu)
        if is_plain and torch.backends.mkldnn.is_available():
            # Left to itself, torch takes a slower path (by a fifth) for single images on one thread.
            arguments = (self.padding, self.stride, self.dilation, self.groups)
            y = torch.mkldnn_convolution(x, self.weight, self.bias, *arguments)
        else:
            y = super().forward(x)
        return functional.relu6(y, inplace=True) if self.relu else y


def pack_weights(network: nn.Module) -> None:
    """Have a network's weights laid out once for inference on the CPU, if torch can; they must not change after."""
    is_possible = can_pack()
    for module in network.modules():
        if isinstance(module, Convolution):
            module.is_packing, module.packed = is_possible, None


def depthwise(channels: int, kernel: int = 3, *, stride: int = 1, relu: bool = True) -> Convolution:
    return Convolution(channels, channels, kernel, stride=stride, groups=channels, relu=relu)


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, block: Bottleneck):
        super().__init__()
        self.expand = Convolution(inputs, block.hidden, relu=True)
        self.spatial = depthwise(block.hidden, block.kernel, stride=block.stride)
        self.project = Convolution(block.hidden, block.out, relu=False)
        self.is_residual = block.stride == 1 and inputs == block.out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.spatial(self.expand(x)))
        return y.add_(x) if self.is_residual else y


class Backbone(nn.Module):
    """Image -> (features at 1/32 of its size, skips by name)."""

    def __init__(self, blocks: tuple[Bottleneck, ...]):
        super().__init__()
        self.stem = Convolution(3, 24, 3, stride=2, relu=True)
        self.stem_spatial = depthwise(24)
        self.stem_project = Convolution(24, 16, relu=False)
        widths = (16, *(block.out for block in blocks))
        self.blocks = nn.ModuleList(InvertedResidual(width, block) for width, block in zip(widths, blocks))
        self.skip_names = tuple(block.skip for block in blocks)
        self.expand = Convolution(widths[-1], blocks[-1].hidden, relu=True)
        self.spatial = depthwise(blocks[-1].hidden)

    def forward(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.stem_project(self.stem_spatial(self.stem(image)))
        skips: dict[str, Tensor] = {}
        for block, skip in zip(self.blocks, self.skip_names):
            if skip:
                skips[skip] = x
            x = block(x)
        return self.spatial(self.expand(x)), skips


class Separable(nn.Sequential):
    """Depthwise 3x3, then 1x1 with ReLU6."""

    def __init__(self, inputs: int, outputs: int, *, inner_relu: bool = True):
        super().__init__()
        self.spatial = depthwise(inputs, relu=inner_relu)
        self.mix = Convolution(inputs, outputs, relu=True)


class SeparableResidual(nn.Module):
    """relu6(x + mix(spatial(x))). With stride 2 the identity path is a 2x2 max pool."""

    def __init__(self, channels: int, *, stride: int = 1, inner_relu: bool = True):
        super().__init__()
        self.spatial = depthwise(channels, stride=stride, relu=inner_relu)
        self.mix = Convolution(channels, channels, relu=False)
        if stride == 2:
            self.spatial.padding = (0, 0)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            y = self.mix(self.spatial(x)).add_(x)
        else:  # TensorFlow's SAME on an even size: the one row and column of padding go at the end
            y = self.mix(self.spatial(functional.pad(x, (0, 1, 0, 1)))).add_(functional.max_pool2d(x, 2))
        return functional.relu6(y, inplace=True)


def upsample(x: Tensor) -> Tensor:
    """Twice the size, bilinear with half-pixel centres."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class LandmarkOutput(NamedTuple):
    landmarks: Tensor
    """[B, 39, 5] float32: x, y, z in crop pixels (z relative to the hips), visibility and presence as logits."""
    presence: Tensor
    """[B] float32: probability that the crop holds a person."""
    heatmaps: Tensor
    """[B, 39, 64, 64] logits."""
    world: Tensor
    """[B, 39, 3] float32 metres, hip-centred, in the crop's (rotated) axes: x right, y down, z forward."""
    embedding: Tensor
    """[B, 1152] the 2 x 2 x 288 features before the heads, row by row, channels last."""


class BlazePoseLandmarks(nn.Module):
    """Crop of one person -> LandmarkOutput."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(LANDMARK_BACKBONE)
        self.lateral64 = Separable(24, 48)
        self.lateral32 = Separable(32, 48)
        self.lateral16 = Separable(88, 48)
        self.lateral8 = Separable(864, 48)
        self.heatmap_head = Convolution(48, LANDMARK_COUNT, relu=False)
        self.neck = Separable(864, 288)
        self.regressor = nn.Sequential(
            SeparableResidual(288, stride=2),
            *(SeparableResidual(288) for _ in range(4)),
            SeparableResidual(288, stride=2),
            *(SeparableResidual(288) for _ in range(5)),
        )
        self.landmark_head = nn.Conv2d(288, LANDMARK_COUNT * 5, 2)
        self.world_head = nn.Conv2d(288, LANDMARK_COUNT * 3, 2)
        self.presence_head = nn.Conv2d(288, 1, 2)

    def reduce_precision(self, dtype: torch.dtype = torch.float16) -> BlazePoseLandmarks:
        """Everything but the three heads in `dtype`: float16 pixels near 200 would be eighths. Returns self."""
        self.to(dtype)
        for head in (self.landmark_head, self.world_head, self.presence_head):
            head.float()
        return self

    def forward(self, crops: Tensor) -> LandmarkOutput:
        """crops [B, 3, 256, 256] RGB in [0, 1] -> LandmarkOutput."""
        deep, skips = self.backbone(crops)
        pyramid = upsample(self.lateral8(deep)).add_(self.lateral16(skips["at16"]))
        pyramid = upsample(pyramid).add_(self.lateral32(skips["at32"]))
        pyramid = upsample(pyramid).add_(self.lateral64(skips["at64"]))
        features = self.regressor(self.neck(deep))  # [B, 288, 2, 2]
        wide = features.to(self.landmark_head.weight.dtype)
        return LandmarkOutput(
            landmarks=self.landmark_head(wide).float().reshape(-1, LANDMARK_COUNT, 5),
            presence=self.presence_head(wide).float().reshape(-1).sigmoid(),
            heatmaps=self.heatmap_head(pyramid),
            world=self.world_head(wide).float().reshape(-1, LANDMARK_COUNT, 3),
            embedding=features.permute(0, 2, 3, 1).reshape(-1, EMBEDDING_SIZE),
        )


class AnchorHead(nn.Module):
    """Features at twice the head's resolution -> per anchor one score logit and 12 box and keypoint values."""

    def __init__(self, channels: int, anchors_per_cell: int):
        super().__init__()
        self.score_spatial = depthwise(channels, stride=2, relu=False)
        self.score = Convolution(channels, anchors_per_cell, relu=False)
        self.box_spatial = depthwise(channels, stride=2, relu=False)
        self.box = Convolution(channels, anchors_per_cell * 12, relu=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.score(self.score_spatial(x)).permute(0, 2, 3, 1)  # [B, h, w, A]
        boxes = self.box(self.box_spatial(x)).permute(0, 2, 3, 1)  # [B, h, w, A * 12]
        return scores.reshape(len(x), -1), boxes.reshape(len(x), -1, 12)


def depth_to_space(x: Tensor) -> Tensor:
    """[B, 4C, h, w] -> [B, C, 2h, 2w], TensorFlow's channel order (row, column, channel)."""
    B, channels, height, width = x.shape
    blocks = x.reshape(B, 2, 2, channels // 4, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(B, channels // 4, height * 2, width * 2)


class BlazePoseDetector(nn.Module):
    """Letterboxed image -> raw anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(DETECTOR_BACKBONE)
        self.lateral28 = Separable(40, 96, inner_relu=False)
        self.lateral14 = Separable(112, 192, inner_relu=False)
        self.top_down14 = Convolution(1152, 192, relu=False)
        self.refine14 = nn.Sequential(*(SeparableResidual(192, inner_relu=False) for _ in range(2)))
        self.top_down28 = Convolution(192, 96, relu=False)
        self.refine28 = nn.Sequential(*(SeparableResidual(96, inner_relu=False) for _ in range(2)))
        self.head8 = AnchorHead(24, 2)
        self.head16 = AnchorHead(48, 2)
        self.head32 = AnchorHead(288, 6)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [B, 3, 224, 224] RGB in [0, 1] -> (score logits [B, 2254], boxes [B, 2254, 12] in pixels)."""
        deep, skips = self.backbone(images * 2 - 1)
        # The published graph upsamples before its 1x1 convolutions; they commute, and this order costs a quarter.
        at14 = functional.relu6(upsample(self.top_down14(deep))).add_(self.lateral14(skips["at14"]))
        at14 = self.refine14(at14)
        at28 = functional.relu6(upsample(self.top_down28(at14))).add_(self.lateral28(skips["at28"]))
        at28 = self.refine28(at28)
        heads = (
            self.head8(depth_to_space(at28)),
            self.head16(depth_to_space(at14)),
            self.head32(depth_to_space(deep)),
        )
        scores, boxes = zip(*heads)
        return torch.cat(scores, 1).float(), torch.cat(boxes, 1).float()
