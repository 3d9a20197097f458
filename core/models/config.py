"""Frozen configurations of the networks: sizes, and every choice and ablation the method leaves open."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from core.layers import ATTENTION_FORMS
from core.skeleton import JOINT_COUNT, KEYPOINT_COUNT, SHAPE_COUNT

MESH_STARTS = ("nearest_joint", "skinned")
FUSIONS = ("mean", "linear")
CURVATURES = ("learned", "fixed", "euclidean")


@dataclass(frozen=True)
class LifterConfig:
    """The 2D-to-3D lifter: `depth` pairs of a spatial and a temporal transformer block over keypoint tokens, then
    `frame_depth` temporal blocks over one token per frame."""

    keypoints: int = KEYPOINT_COUNT
    joints: int = JOINT_COUNT
    shape_components: int = SHAPE_COUNT
    dim: int = 256
    depth: int = 3
    heads: int = 8
    mlp_ratio: float = 2.0
    window: int = 64
    """Frames per training window and per inference window; any other length works."""
    base_fps: float = 30.0
    """Rate at which one frame is one unit of temporal position."""
    joint_dim: int = 32
    """Size to which each token is reduced before the heads read all tokens of a frame."""
    head_dim: int = 512
    """Size of a frame's summary and of the frame tokens."""
    frame_depth: int = 0
    frame_heads: int = 8
    use_landmarks3d: bool = True
    """Take the detector's own 3D landmarks as a start to correct."""
    rotation_head: bool = True
    """Also predict 6D joint rotations and the shape, which help the later fit."""


@dataclass(frozen=True)
class HyperbolicConfig:
    """The mesh network: temporal motion prior, hyperbolic pose and motion optimisation, fusion, upsampling."""

    lifter: LifterConfig = field(default_factory=LifterConfig)
    feature_dim: int = 1152
    """Size of the image feature of a frame (F): 1152 for BlazePose, 2048 for ResNet-50."""
    coarse_vertices: int = 431
    """V' of the coarse mesh."""
    window: int = 16
    """T: frames that the motion prior of the mid frame sees."""
    prior_dim: int = 256
    """Size of E_m, of the GRU states and of the prior f."""
    dim: int = 64
    heads: int = 4
    mlp_ratio: float = 2.0
    cross_attention: str = "distance"
    """As the paper has it; the tangent form is as good (within the spread of seeds; core/train/README.md)."""
    self_attention: str = "tangent"
    """The distance form costs 13 times the tangent form for 431 x 431 tokens on a CPU, hence tangent here."""
    curvature: str = "learned"
    curvature_init: float = 1 / 64
    """Layer-normalised tokens of D numbers have norm sqrt(D): 1/D puts them at distance 2 from the origin. Learned,
    fixed there and fixed at 1 come out alike."""
    mesh_start: str = "nearest_joint"
    """M_0: each coarse vertex at its nearest joint (the papers), or the coarse body skinned by the lifter's own
    rotations and shape, its bones turned to the lifter's joints (`core.models.orient`): 12 mm of MPVPE better after
    equal training, hence in the shipped network."""
    fusion: str = "linear"
    """Contains the mean, which came out 3 mm of MPVPE worse."""
    use_tpmi: bool = True
    use_tmf: bool = True
    use_hpo: bool = True
    use_hmo: bool = True
    upsample_rank: int = 16
    """Rank of the learned correction to the fixed lift U."""
    residual_rank: int = 16
    """Rank of the vertex residuals predicted from f."""
    hyperbolic_mesh_weight: float = 1.0
    """w_h of the hyperbolic mesh loss; 0 leaves it out."""

    def __post_init__(self):
        _expect("cross_attention", self.cross_attention, ATTENTION_FORMS)
        _expect("self_attention", self.self_attention, ATTENTION_FORMS)
        _expect("mesh_start", self.mesh_start, MESH_STARTS)
        _expect("fusion", self.fusion, FUSIONS)
        _expect("curvature", self.curvature, CURVATURES)
        if self.window < 2 or self.window % 2:
            raise ValueError(f"window must be even and at least 2, not {self.window}")
        if not (self.use_hpo or self.use_hmo):
            raise ValueError("use_hpo or use_hmo must be on: without both there is no mesh")
        if self.use_hmo and not self.use_tpmi:
            raise ValueError("use_hmo needs use_tpmi: its tokens are the pose motion information")
        if self.mesh_start == "skinned" and not self.lifter.rotation_head:
            raise ValueError("mesh_start 'skinned' needs the lifter's rotation_head")


def _expect(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


def to_dict(config) -> dict:
    """Plain nested dictionary of a config, for a checkpoint or a TOML file."""
    return dataclasses.asdict(config)


def from_dict(kind: type, values: dict):
    """Build config class `kind` from a nested dictionary; unknown names are an error that lists the known ones."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown)}; it has {', '.join(fields)}")
    built = {}
    for name, value in values.items():
        default = fields[name].default_factory
        nested = default() if default is not dataclasses.MISSING else None
        is_config = dataclasses.is_dataclass(nested) and isinstance(value, dict)
        built[name] = from_dict(type(nested), value) if is_config else value
    return kind(**built)
