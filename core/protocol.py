"""Messages between Blender and the engine, and their bytes. No I/O, standard library only.

The one module both sides import. A message on the wire is

    magic "HMOC" | u16 version | u16 zero | u32 header bytes | u32 payload bytes | header | payload

all little-endian. The header is a JSON object {"type": ..., "fields": {...}, "arrays": [[name, dtype, shape],
...]}; the payload is the arrays' raw little-endian bytes, in that order, nothing between them. The set of
messages is closed (`MESSAGES`); unknown types, missing or surplus fields, wrong types, non-finite numbers and
anything over the limits raise ProtocolError. Nothing is ever unpickled or evaluated.

Conversation: the engine connects and sends Hello with the token; Blender answers with Job. The engine sends
Video, Body, then Progress and People as they come, Shape and View before the first Frames of a person, Frames as
windows finish, Revise where later knowledge improved frames already sent, and last Done or Error. Blender may
send Cancel (finish cleanly, keep what is done, answer Done with cancelled=true), Choose (which people to recover)
and Bye at any time. A closed socket ends the engine.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import get_args

VERSION = 1
MAGIC = b"HMOC"
PREFIX = struct.Struct("<4sHHII")
MAX_HEADER = 1 << 20
MAX_PAYLOAD = 1 << 28
MAX_ARRAYS = 16
MAX_DIMENSIONS = 4
TOKEN_VARIABLE = "HYPER_MOCAP_TOKEN"
"""Environment variable that carries the token to the engine; it never appears in a command line."""
DEFAULT_METHOD = "hyperbolic"
"""The recovery method where nothing else is asked for."""
VIDEO_SUFFIXES = tuple(".mp4 .mov .m4v .avi .mkv .webm .mpg .mpeg .mts .m2ts .wmv .ogv".split())
"""What a folder is searched for; a file that is named is taken whatever it is called."""
IMAGE_SUFFIXES = tuple(".png .jpg .jpeg .bmp .tif .tiff .webp .exr .dpx .cin .hdr".split())
"""A folder without videos that holds such images is one clip; core.video says which kinds it cannot read."""
REFINES_BY_DEFAULT = True
"""Whether a job refines a network's motion to the footage where its options do not say."""
REFINABLE_METHODS = frozenset({"hyperbolic", "pmce", "tcmr", "lmr", "posture"})
"""Recovery methods whose motion can be refined to the footage."""
QUALITIES = ("draft", "standard", "high")
"""How closely a video is looked at; core.options says what each does."""
HEIGHTS_M = (0.5, 2.5)
"""Least and largest standing height, metres, that a person can be given."""
DEFAULT_SMOOTHING_S = 0.03
LONGEST_SMOOTHING_S = 5.0
SMOOTHING_LIMBS: dict[str, tuple[str, ...]] = {
    "root": ("root",),
    "torso": ("torso",),
    "head": ("head",),
    "left_arm": ("left_arm",),
    "right_arm": ("right_arm",),
    "left_leg": ("left_leg",),
    "right_leg": ("right_leg",),
    "arms": ("left_arm", "right_arm"),
    "legs": ("left_leg", "right_leg"),
}
"""What can be given a smoothing of its own: the limbs of core.smooth, and names for two of them."""
JOINT_NAMES: tuple[str, ...] = (
    "pelvis",
    "left_hip",
    "right_hip",
    "spine1",
    "left_knee",
    "right_knee",
    "spine2",
    "left_ankle",
    "right_ankle",
    "spine3",
    "left_foot",
    "right_foot",
    "neck",
    "left_collar",
    "right_collar",
    "head",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hand",
    "right_hand",
)
PARENTS: tuple[int, ...] = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
)  # fmt: skip
"""For each joint the one it hangs on."""
ITEM_BYTES = {"<f4": 4, "<f2": 2, "<f8": 8, "<i4": 4, "<i8": 8, "|u1": 1}
_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


def read_pairs(text: str) -> dict[str, float]:
    """Return {"arms": 0.0, "torso": 0.06} from the words "arms:0,torso:0.06" of a command line.

    ValueError where it is not NAME:NUMBER[,NAME:NUMBER] or a name comes twice.
    """
    pairs = [word.split(":") for word in text.split(",")]
    by_name = {name.strip(): float(number) for name, number in pairs}
    if len(by_name) < len(pairs):
        raise ValueError(f"{text}: a name comes twice")
    return by_name


def read_people(text: str) -> str | tuple[int, ...]:
    """Return "all" as it is, or numbers of people from "0,2". ValueError where it is neither."""
    return text if text == "all" else tuple(int(word) for word in text.split(","))


def read_heights(text: str) -> float | dict[int, float]:
    """Return metres for everybody from "1.72", or by person from "0:1.72,1:1.6". ValueError where it is neither."""
    return {int(name): height for name, height in read_pairs(text).items()} if ":" in text else float(text)


class ProtocolError(Exception):
    """The bytes or the message break the rules above. The connection cannot go on."""


@dataclass(frozen=True)
class Array:
    """Raw little-endian array: `numpy.frombuffer(a.data, a.dtype).reshape(a.shape)` on either side."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


NO_ARRAY = Array("<f4", (0,), b"")


@dataclass(frozen=True)
class Hello:
    """Engine -> Blender, first message."""

    token: str
    engine_version: str
    pid: int
    device: str


@dataclass(frozen=True)
class Job:
    """Blender -> engine: what to recover. `options` holds the keyword fields of core.pipeline.JobOptions."""

    video: str
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Video:
    """Engine -> Blender: the clip as the engine reads it."""

    path: str
    width: int
    height: int
    fps: float
    frame_count: int


@dataclass(frozen=True)
class Body:
    """The body all vertices refer to. V vertices, F faces, at most 4 joint influences per vertex.

    v_template [V,3] m, y up, T-pose; faces [F,4] int32 (fourth index -1 for a triangle); weight_joints [V,4] int32;
    weight_values [V,4]; joints [24,3] m; shapedirs [V,3,S] and joint_shapedirs [24,3,S] m per unit of shape;
    uv [F*4,2], or empty.
    """

    name: str
    gender: str
    v_template: Array = NO_ARRAY
    faces: Array = NO_ARRAY
    weight_joints: Array = NO_ARRAY
    weight_values: Array = NO_ARRAY
    joints: Array = NO_ARRAY
    shapedirs: Array = NO_ARRAY
    joint_shapedirs: Array = NO_ARRAY
    uv: Array = NO_ARRAY


@dataclass(frozen=True)
class Progress:
    """stage: one of STAGES; done, total in its units; fraction of the whole job 0..1; eta_s < 0: unknown."""

    stage: str
    done: int
    total: int
    fraction: float
    eta_s: float


STAGES = ("open", "perceive", "track", "recover", "place", "write")


@dataclass(frozen=True)
class People:
    """people: list of {"person", "first", "last", "frames", "confidence", "height_px", "chosen"}."""

    people: list


@dataclass(frozen=True)
class Shape:
    """One person's shape: betas [S] and the resulting height in metres."""

    person: int
    height_m: float
    betas: Array = NO_ARRAY


@dataclass(frozen=True)
class View:
    """The camera in the world frame (z up): matrix [4,4] x_world = matrix @ x_cam, camera x right y down z forward.

    `start` is the first frame it holds for; a static camera sends one View with start 0.
    """

    start: int
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    matrix: Array = NO_ARRAY


@dataclass(frozen=True)
class Frames:
    """n frames of one person, in order. frames [n] int32 source index; times [n] f8 s; poses [n,72] axis-angle, root
    in the world; trans [n,3] m world; confidence [n]; contacts [n,4]; vertices [n,V,3] m in the WORLD frame, or
    empty.
    """

    person: int
    frames: Array = NO_ARRAY
    times: Array = NO_ARRAY
    poses: Array = NO_ARRAY
    trans: Array = NO_ARRAY
    confidence: Array = NO_ARRAY
    contacts: Array = NO_ARRAY
    vertices: Array = NO_ARRAY


@dataclass(frozen=True)
class Revise(Frames):
    """Better values for frames that were already sent; same layout as Frames."""


@dataclass(frozen=True)
class Done:
    """The job ended well or was cancelled; `results` are the paths of the files written."""

    cancelled: bool
    results: list
    summary: dict


@dataclass(frozen=True)
class Error:
    """The job failed. `message` is one line for the user, saying what to do; `code` is from core.errors."""

    code: str
    message: str


@dataclass(frozen=True)
class Choose:
    """Blender -> engine: recover only these people (ids of People)."""

    people: list


@dataclass(frozen=True)
class Cancel:
    """Blender -> engine: stop soon, keep what is done."""


@dataclass(frozen=True)
class Bye:
    """Blender -> engine: nothing more will come; exit."""


Message = (
    Hello | Job | Video | Body | Progress | People | Shape | View | Frames | Revise | Done | Error | Choose
    | Cancel | Bye
)  # fmt: skip
MESSAGES: dict[str, type] = {cls.__name__.lower(): cls for cls in get_args(Message)}


def encode(message: Message) -> bytes:
    """Return the message's bytes. ProtocolError if it breaks the rules: what we send is checked like what we get."""
    kind = type(message).__name__.lower()
    if MESSAGES.get(kind) is not type(message):
        raise ProtocolError(f"not a message: {type(message).__name__}")
    values, arrays, payload = {}, [], []
    for f in fields(message):
        value = getattr(message, f.name)
        _check_field(kind, f, value)
        if isinstance(value, Array):
            arrays.append([f.name, value.dtype, list(value.shape)])
            payload.append(bytes(value.data))
        else:
            values[f.name] = value
    try:
        header = json.dumps({"type": kind, "fields": values, "arrays": arrays}, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"{kind}: not expressible as JSON: {error}") from None
    size = sum(map(len, payload))
    _check_sizes(len(header), size)
    return b"".join([PREFIX.pack(MAGIC, VERSION, 0, len(header), size), header, *payload])


class Decoder:
    """Bytes in, messages out: `feed` what arrived, then iterate `messages`. Holds at most one unfinished message."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    @property
    def pending(self) -> int:
        """Number of bytes that wait for the rest of their message."""
        return len(self._buffer)

    def messages(self) -> Iterator[Message]:
        """Yield every complete message. ProtocolError at the first one that breaks the rules."""
        while True:
            message = self.next_or_none()
            if message is None:
                return
            yield message

    def next_or_none(self) -> Message | None:
        """Return the next complete message, or None until more bytes arrive."""
        if len(self._buffer) < PREFIX.size:
            if not MAGIC.startswith(self._buffer[:4]):
                raise ProtocolError("not a Hyper Mocap message (wrong magic)")
            return None
        magic, version, reserved, header_bytes, payload_bytes = PREFIX.unpack_from(self._buffer)
        if magic != MAGIC:
            raise ProtocolError("not a Hyper Mocap message (wrong magic)")
        if version != VERSION or reserved:
            raise ProtocolError(f"protocol version {version}, expected {VERSION}: update engine and add-on together")
        _check_sizes(header_bytes, payload_bytes)
        end = PREFIX.size + header_bytes + payload_bytes
        if len(self._buffer) < end:
            return None
        header = bytes(self._buffer[PREFIX.size : PREFIX.size + header_bytes])
        payload = bytes(self._buffer[PREFIX.size + header_bytes : end])
        del self._buffer[:end]
        return _decode(header, payload)


def _decode(header: bytes, payload: bytes) -> Message:
    try:
        parsed = json.loads(header.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"header is not JSON: {error}") from None
    if not isinstance(parsed, dict) or set(parsed) != {"type", "fields", "arrays"}:
        raise ProtocolError("header must hold type, fields and arrays")
    kind, values, arrays = parsed["type"], parsed["fields"], parsed["arrays"]
    cls = MESSAGES.get(kind) if isinstance(kind, str) else None
    if cls is None or not isinstance(values, dict) or not isinstance(arrays, list) or len(arrays) > MAX_ARRAYS:
        raise ProtocolError(f"unknown or malformed message {str(kind)[:40]!r}")
    offset = 0
    for entry in arrays:
        name, array, offset = _take_array(kind, entry, payload, offset)
        if name in values:
            raise ProtocolError(f"{kind}: {name} given twice")
        values[name] = array
    if offset != len(payload):
        raise ProtocolError(f"{kind}: {len(payload) - offset} bytes too many")
    known = {f.name: f for f in fields(cls)}
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if not required <= set(values) <= set(known):
        raise ProtocolError(f"{kind}: fields {sorted(values)[:20]} do not fit {sorted(known)}")
    for name, value in values.items():
        _check_field(kind, known[name], value)
    return cls(**values)


def _take_array(kind: str, entry: object, payload: bytes, offset: int) -> tuple[str, Array, int]:
    if not (isinstance(entry, list) and len(entry) == 3):
        raise ProtocolError(f"{kind}: malformed array entry")
    name, dtype, shape = entry
    if not isinstance(name, str) or not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ProtocolError(f"{kind}: array with unknown type")
    size = _array_bytes(kind, dtype, shape)
    if offset + size > len(payload):
        raise ProtocolError(f"{kind}: array {name[:40]!r} is longer than its message")
    return name, Array(dtype, tuple(shape), payload[offset : offset + size]), offset + size


def _array_bytes(kind: str, dtype: str, shape: object) -> int:
    is_shape = isinstance(shape, (list, tuple)) and 1 <= len(shape) <= MAX_DIMENSIONS
    if not is_shape or not all(type(n) is int and 0 <= n <= MAX_PAYLOAD for n in shape):
        raise ProtocolError(f"{kind}: bad array shape")
    return math.prod(shape) * ITEM_BYTES[dtype]


def _check_field(kind: str, f, value: object) -> None:
    """Check one value against its annotation. Ints pass as floats; bools never pass as numbers."""
    if f.type == "Array":
        if not isinstance(value, Array) or value.dtype not in ITEM_BYTES:
            raise ProtocolError(f"{kind}.{f.name}: expected an array")
        if _array_bytes(kind, value.dtype, value.shape) != len(value.data):
            raise ProtocolError(f"{kind}.{f.name}: {len(value.data)} bytes do not fit shape {value.shape}")
        return
    expected = _TYPES[f.type]
    is_number = type(value) in (int, float) and expected is float
    if not is_number and type(value) is not expected:
        raise ProtocolError(f"{kind}.{f.name}: expected {f.type}, got {type(value).__name__}")
    if is_number:
        try:
            finite = math.isfinite(value)
        except OverflowError:
            finite = False
        if not finite:
            raise ProtocolError(f"{kind}.{f.name}: not a finite number")


def _check_sizes(header_bytes: int, payload_bytes: int) -> None:
    if header_bytes > MAX_HEADER or payload_bytes > MAX_PAYLOAD:
        raise ProtocolError(
            f"message of {header_bytes} + {payload_bytes} bytes is over the limit ({MAX_HEADER} + {MAX_PAYLOAD})"
        )


def _refuse_constant(name: str) -> None:
    raise ProtocolError(f"{name} is not a number that may be sent")
