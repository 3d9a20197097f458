"""A reader of TFLite files: the weights of convolutions in graph order. Standard library and numpy.

Only what the converters need: tables of the FlatBuffer are walked by field number (numbers from TensorFlow's
schema.fbs, Apache-2.0), constants are followed through DEQUANTIZE and DENSIFY to their float16 or float32 bytes,
and sparse tensors (the last dimension compressed by rows) are expanded. Anything else is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

OPERATOR_NAMES = {3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 124: "DENSIFY"}
TENSOR_TYPES = {0: "<f4", 1: "<f2", 2: "<i4"}
INDEX_TYPES = {1: "<i4", 2: "<u2", 3: "<u1"}
DENSE, SPARSE_CSR = 0, 1


@dataclass(frozen=True)
class Convolution:
    """One convolution. weight: [out, height, width, in], or [1, height, width, channels] if depthwise."""

    name: str
    is_depthwise: bool
    weight: np.ndarray
    bias: np.ndarray
    is_sparse: bool
    """True if the file stored the weight compressed: most of its values are zero."""


class Table:
    """One FlatBuffer table: a position in the bytes and a list of field offsets."""

    def __init__(self, data: bytes, position: int):
        self.data = data
        self.position = position
        self._fields = position - struct.unpack_from("<i", data, position)[0]
        self._fields_bytes = struct.unpack_from("<H", data, self._fields)[0]

    @staticmethod
    def root(data: bytes) -> Table:
        return Table(data, struct.unpack_from("<I", data, 0)[0])

    def _place_or_none(self, field: int) -> int | None:
        slot = 4 + 2 * field
        if slot >= self._fields_bytes:
            return None
        offset = struct.unpack_from("<H", self.data, self._fields + slot)[0]
        return self.position + offset if offset else None

    def _follow(self, place: int) -> int:
        return place + struct.unpack_from("<I", self.data, place)[0]

    def number(self, field: int, code: str) -> int:
        """Scalar field by its struct code; 0 where absent."""
        place = self._place_or_none(field)
        return 0 if place is None else struct.unpack_from("<" + code, self.data, place)[0]

    def table_or_none(self, field: int) -> Table | None:
        place = self._place_or_none(field)
        return None if place is None else Table(self.data, self._follow(place))

    def array(self, field: int, dtype: str) -> np.ndarray:
        """Vector of scalars; empty where absent."""
        place = self._place_or_none(field)
        if place is None:
            return np.zeros(0, dtype)
        start = self._follow(place)
        return np.frombuffer(self.data, dtype, struct.unpack_from("<I", self.data, start)[0], start + 4)

    def tables(self, field: int) -> list[Table]:
        place = self._place_or_none(field)
        if place is None:
            return []
        start = self._follow(place)
        count = struct.unpack_from("<I", self.data, start)[0]
        return [Table(self.data, self._follow(start + 4 + 4 * k)) for k in range(count)]

    def text(self, field: int) -> str:
        return self.array(field, "<u1").tobytes().decode("utf-8")


def read_convolutions(data: bytes) -> list[Convolution]:
    """Every convolution of a TFLite model in graph order. Raises ValueError if the bytes are something else."""
    if data[4:8] != b"TFL3":
        raise ValueError("not a TFLite model: the file does not carry the identifier TFL3")
    model = Table.root(data)
    kinds = [OPERATOR_NAMES.get(max(code.number(0, "b"), code.number(3, "i")), "") for code in model.tables(1)]
    graph = model.tables(2)[0]
    tensors, buffers = graph.tables(0), model.tables(4)
    sources: dict[int, int] = {}  # output of DEQUANTIZE or DENSIFY -> its input
    found = []
    for operator in graph.tables(3):
        kind = kinds[operator.number(0, "I")]
        inputs, outputs = operator.array(1, "<i4"), operator.array(2, "<i4")
        if kind in ("DEQUANTIZE", "DENSIFY"):
            sources[int(outputs[0])] = int(inputs[0])
        elif kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            weight, is_sparse = _read_constant(tensors, buffers, sources, int(inputs[1]))
            bias, _ = _read_constant(tensors, buffers, sources, int(inputs[2]))
            name = tensors[int(outputs[0])].text(3)
            found.append(Convolution(name, kind == "DEPTHWISE_CONV_2D", weight, bias, is_sparse))
    return found


def _read_constant(
    tensors: list[Table], buffers: list[Table], sources: dict[int, int], index: int
) -> tuple[np.ndarray, bool]:
    while index in sources:
        index = sources[index]
    tensor = tensors[index]
    shape = tuple(int(n) for n in tensor.array(0, "<i4"))
    dtype = TENSOR_TYPES.get(tensor.number(1, "b"))
    stored = buffers[tensor.number(2, "I")].array(0, "<u1")
    if dtype is None or not len(stored):
        raise ValueError(f"tensor {tensor.text(3)!r} is not a float constant")
    values = stored.view(dtype)
    sparsity = tensor.table_or_none(6)
    if sparsity is None:
        return values.reshape(shape), False
    return _expand_rows(values, shape, sparsity), True


def _expand_rows(values: np.ndarray, shape: tuple[int, ...], sparsity: Table) -> np.ndarray:
    order, dimensions = sparsity.array(0, "<i4"), sparsity.tables(2)
    formats = [dimension.number(0, "b") for dimension in dimensions]
    if list(order) != list(range(len(shape))) or formats != [DENSE] * (len(shape) - 1) + [SPARSE_CSR]:
        raise ValueError(f"sparse layout {formats} in order {list(order)} is not supported")
    last = dimensions[-1]
    segments, columns = (
        last.table_or_none(union + 1).array(0, INDEX_TYPES[last.number(union, "B")]).astype(np.int64)
        for union in (2, 4)
    )
    rows = np.repeat(np.arange(len(segments) - 1), np.diff(segments))
    dense = np.zeros((len(segments) - 1, shape[-1]), values.dtype)
    dense[rows, columns] = values
    return dense.reshape(shape)
