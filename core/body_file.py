"""Reading body model files into plain arrays, and refusing everything else with one clear line.

Two kinds are read: the shipped body (weights/body_neutral.npz and files like it) and official SMPL bodies (.npz or
.pkl). Official .pkl files are Python pickles: they are read by an unpickler that knows arrays, sparse matrices and
chumpy's array wrapper and nothing else, so that a file cannot run code. What a body does is in core.body.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BodyFileError
from core.skeleton import JOINT_COUNT, PARENTS, PRINCIPAL_COUNT, SHAPE_COUNT

EXPECTED = "an SMPL body model (.npz or .pkl with 24 joints) or the body_neutral.npz that is shipped"
REQUIRED = ("v_template", "shapedirs", "weights", "J_regressor", "kintree_table", "f")
OPTIONAL = (
    "posedirs", "has_posedirs", "quads", "uv", "quad_uv", "keypoint_regressor", "name", "gender", "shape_names",
)  # fmt: skip
KNOWN_KINDS = {55: "SMPL-X", 52: "SMPL+H", 16: "MANO", 5: "FLAME"}
ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = (b"\x80", b"(", b"c")


def read_body_file(path: str | Path) -> dict[str, Any]:
    """Arrays of a body file: REQUIRED ones checked and float64 or int64, OPTIONAL ones where present.

    V vertices, T triangles: v_template [V, 3], shapedirs [V, 3, 16] (see _shape_directions), weights [V, 24],
    J_regressor [24, V], f [T, 3], posedirs [V, 3, 207] or None. Raises BodyFileError.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(4)
    except OSError as error:
        raise BodyFileError(f"{path}: cannot be read ({error.strerror}); expected {EXPECTED}") from error
    if head == ZIP_MAGIC:
        raw = _read_npz(path)
    elif head.startswith(PICKLE_MAGIC):
        raw = _read_pickle(path)
    else:
        raise BodyFileError(f"{path.name} is not a body model: expected {EXPECTED}")
    return _checked(raw, path.name)


def _read_npz(path: Path) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = {n.removesuffix(".npy"): n for n in archive.namelist() if n.endswith(".npy")}
            for key in (*REQUIRED, *OPTIONAL):
                if key not in names or (key == "posedirs" and not raw.get("has_posedirs", True)):
                    continue
                raw[key] = _read_npy(archive.read(names[key]))
                if key == "f" and "has_posedirs" in names:  # before posedirs: zeros need not be unpacked
                    raw["has_posedirs"] = bool(_read_npy(archive.read(names["has_posedirs"])))
    except BodyFileError as error:
        raise BodyFileError(f"{path.name}: {error}") from error
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError) as error:
        raise BodyFileError(f"{path.name} is damaged ({error}); expected {EXPECTED}") from error
    return raw


def _read_npy(data: bytes) -> np.ndarray:
    """One array of an npz; arrays of objects (sparse matrices in some SMPL files) by the guarded unpickler."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(stream)
    if not dtype.hasobject:
        return np.load(io.BytesIO(data), allow_pickle=False)
    value = _unpickle(stream)
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def _read_pickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            raw = _unpickle(stream)
    except BodyFileError as error:
        raise BodyFileError(f"{path.name}: {error}") from error
    if not isinstance(raw, dict):
        raise BodyFileError(f"{path.name} holds a {type(raw).__name__}, not a body model: expected {EXPECTED}")
    return {str(key): value for key, value in raw.items()}


class _StandIn:
    """Takes the place of a class we do not load; keeps its state for _to_array."""

    def __init__(self, *arguments):
        self.state: dict[str, Any] = {}

    def __setstate__(self, state):
        self.state = state if isinstance(state, dict) else {}


class _Sparse(_StandIn):
    """A scipy sparse matrix: data, indices, indptr (or coords, or row and col) and shape."""

    by_column = False

    def to_array(self) -> np.ndarray:
        """The dense matrix."""
        data = np.asarray(self.state["data"])
        shape = tuple(int(n) for n in self.state.get("_shape", self.state.get("shape", ())))
        dense = np.zeros(shape, np.float64)
        if "indptr" in self.state:
            major = np.repeat(np.arange(len(self.state["indptr"]) - 1), np.diff(self.state["indptr"]))
            minor = np.asarray(self.state["indices"])
        else:
            pair = self.state["coords"] if "coords" in self.state else (self.state["row"], self.state["col"])
            major, minor = np.asarray(pair[0]), np.asarray(pair[1])
        rows, columns = (minor, major) if self.by_column else (major, minor)
        np.add.at(dense, (rows, columns), data)
        return dense


class _SparseColumns(_Sparse):
    by_column = True


class _Chumpy(_StandIn):
    """chumpy's array wrapper: the numbers are in `x`."""

    def to_array(self) -> np.ndarray:
        """The wrapped array."""
        return np.asarray(self.state["x"], np.float64)


def _reconstructor(cls, base, state):
    """copyreg._reconstructor for our stand-ins alone (Python 2 pickles of protocol 0 and 1)."""
    if not (isinstance(cls, type) and issubclass(cls, _StandIn)):
        raise pickle.UnpicklingError("only body model arrays are admitted")
    return cls()


def _encode(text, encoding="latin1"):
    """_codecs.encode as numpy's protocol 2 pickles use it, latin1 only."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("only body model arrays are admitted")
    return text.encode("latin1")


class _GuardedUnpickler(pickle.Unpickler):
    """Admits numpy arrays, scipy sparse matrices and chumpy arrays (the last two as stand-ins); refuses the rest."""

    def find_class(self, module: str, name: str):
        """Return the admitted class or raise BodyFileError."""
        admitted = _admitted(module, name)
        if admitted is None:
            raise BodyFileError(f"refused: it asks for {module}.{name}, which a body model does not need")
        return admitted


def _admitted(module: str, name: str):
    if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("_reconstruct", "scalar"):
        return getattr(np.core.multiarray if not hasattr(np, "_core") else np._core.multiarray, name)
    if module == "numpy" and name in ("ndarray", "dtype"):
        return getattr(np, name)
    if module.startswith("scipy.sparse"):
        if name in ("csc_matrix", "csc_array"):
            return _SparseColumns
        if name in ("csr_matrix", "csr_array", "coo_matrix", "coo_array"):
            return _Sparse
    if (module, name) in (("chumpy.ch", "Ch"), ("chumpy", "Ch")):
        return _Chumpy
    if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
        return _reconstructor
    if (module, name) in (("__builtin__", "object"), ("builtins", "object")):
        return object
    if (module, name) == ("_codecs", "encode"):
        return _encode
    return None


def _unpickle(stream) -> Any:
    try:
        return _GuardedUnpickler(stream, encoding="latin1").load()
    except BodyFileError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise BodyFileError(
            f"cannot be read as a body model ({type(error).__name__}); expected {EXPECTED}"
        ) from error


def _to_array(value: Any, dtype) -> np.ndarray:
    if isinstance(value, _Sparse | _Chumpy):
        value = value.to_array()
    return np.asarray(value).astype(dtype)


def _checked(raw: dict[str, Any], name: str) -> dict[str, Any]:
    missing = [key for key in REQUIRED if key not in raw]
    if missing:
        raise BodyFileError(f"{name} is not a body model (no {', '.join(missing)}): expected {EXPECTED}")
    try:
        arrays: dict[str, Any] = {key: _to_array(raw[key], np.float64) for key in REQUIRED[:4]}
        arrays["f"] = _to_array(raw["f"], np.int64)
        parents = _to_array(raw["kintree_table"], np.int64)[0]
        posedirs = raw.get("posedirs")
        arrays["posedirs"] = None if posedirs is None else _to_array(posedirs, np.float32)
        for key in ("quads", "quad_uv"):
            arrays[key] = _to_array(raw[key], np.int64) if key in raw else None
        for key in ("uv", "keypoint_regressor"):
            arrays[key] = _to_array(raw[key], np.float64) if key in raw else None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise BodyFileError(f"{name}: its arrays cannot be read ({error}); expected {EXPECTED}") from error
    joints = arrays["weights"].shape[-1] if arrays["weights"].ndim == 2 else 0
    if joints != JOINT_COUNT:
        kind = KNOWN_KINDS.get(joints)
        what = f"an {kind} body" if kind else "no SMPL body"
        raise BodyFileError(f"{name} is {what} with {joints} joints: expected {EXPECTED}")
    V = len(arrays["v_template"])
    shapes = {"v_template": (V, 3), "weights": (V, JOINT_COUNT), "J_regressor": (JOINT_COUNT, V)}
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise BodyFileError(f"{name}: {key} is {arrays[key].shape}, not {shape}: expected {EXPECTED}")
    if arrays["shapedirs"].ndim != 3 or arrays["shapedirs"].shape[:2] != (V, 3):
        raise BodyFileError(
            f"{name}: shapedirs is {arrays['shapedirs'].shape}, not ({V}, 3, {PRINCIPAL_COUNT}): expected {EXPECTED}"
        )
    if not (len(parents) == JOINT_COUNT and tuple(parents[1:]) == PARENTS[1:]):
        raise BodyFileError(f"{name}: its joints are connected in another order than SMPL's: expected {EXPECTED}")
    posed = (V, 3, 9 * (JOINT_COUNT - 1))
    if arrays["posedirs"] is not None and arrays["posedirs"].shape != posed:
        raise BodyFileError(f"{name}: posedirs is {arrays['posedirs'].shape}, not {posed}: expected {EXPECTED}")
    if arrays["f"].ndim != 2 or arrays["f"].shape[1] != 3 or arrays["f"].min() < 0 or arrays["f"].max() >= V:
        raise BodyFileError(f"{name}: its faces do not fit its {V} vertices: expected {EXPECTED}")
    if not all(np.isfinite(arrays[key]).all() for key in REQUIRED[:4]):
        raise BodyFileError(f"{name} is damaged (not finite): expected {EXPECTED}")
    arrays["shapedirs"] = _shape_directions(arrays["shapedirs"], has_lengths="shape_names" in raw)
    for key in ("name", "gender"):
        arrays[key] = str(raw[key]) if key in raw and np.ndim(raw[key]) == 0 else None
    return arrays


def _shape_directions(shapedirs: np.ndarray, *, has_lengths: bool) -> np.ndarray:
    """Directions [V, 3, 16] of those found [V, 3, S]: the principal ones padded with zeros or cut (official bodies
    have up to 300), then lengths where the file is like the shipped one."""
    result = np.zeros((*shapedirs.shape[:2], SHAPE_COUNT))
    found = min(SHAPE_COUNT if has_lengths else PRINCIPAL_COUNT, shapedirs.shape[2])
    result[..., :found] = shapedirs[..., :found]
    return result
