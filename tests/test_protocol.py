"""The wire format: one table of messages both ways, the rules that must be refused, and fuzzing."""

from __future__ import annotations

import json
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import protocol as p

FLOATS = p.Array("<f4", (2, 3), struct.pack("<6f", 1, 2, 3, 4, 5, 6))
INTS = p.Array("<i4", (2,), struct.pack("<2i", 7, -8))
CASES = [
    p.Hello("secret", "0.1.0", 4242, "cpu"),
    p.Job("/videos/Übung 1.mp4", {"method": "fit", "person": "all", "start": 0.5}),
    p.Job("clip.mp4"),
    p.Video("clip.mp4", 1920, 1080, 29.97, 300),
    p.Body("default", "neutral", v_template=FLOATS, faces=INTS),
    p.Progress("perceive", 10, 300, 0.25, 12.5),
    p.Progress("open", 0, 0, 0, -1),
    p.People([{"person": 0, "frames": 300, "confidence": 0.9}]),
    p.Shape(0, 1.78, betas=FLOATS),
    p.View(0, 1400.0, 1400.0, 960.0, 540.0, 1920, 1080, matrix=FLOATS),
    p.Frames(1, frames=INTS, poses=FLOATS),
    p.Revise(1, frames=INTS, trans=FLOATS),
    p.Done(False, ["out/clip_person0.npz"], {"frames": 300}),
    p.Error("video", "clip.mp4 holds no picture: choose another file"),
    p.Choose([0, 2]),
    p.Cancel(),
    p.Bye(),
]


def decode_all(data: bytes) -> list:
    decoder = p.Decoder()
    decoder.feed(data)
    return list(decoder.messages())


def wire(header: object, payload: bytes = b"", *, version: int = p.VERSION, magic: bytes = p.MAGIC) -> bytes:
    """Build a message by hand, from the format's description rather than by `encode`."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return magic + struct.pack("<HHII", version, 0, len(text), len(payload)) + text + payload


def test_every_message_is_in_the_table() -> None:
    assert {type(m) for m in CASES} == set(p.MESSAGES.values())


@pytest.mark.parametrize("message", CASES, ids=lambda m: type(m).__name__)
def test_decode_inverts_encode(message: object) -> None:
    data = p.encode(message)
    assert decode_all(data) == [message]
    assert type(decode_all(data)[0]) is type(message)


def test_byte_by_byte_and_trailing() -> None:
    decoder, received = p.Decoder(), []
    for byte in b"".join(p.encode(m) for m in CASES) + p.encode(p.Cancel())[:7]:
        decoder.feed(bytes([byte]))
        received += decoder.messages()
    assert received == CASES
    assert decoder.pending == 7


def test_layout_on_the_wire() -> None:
    header = {"type": "choose", "fields": {"people": [3]}, "arrays": []}
    assert decode_all(wire(header)) == [p.Choose([3])]
    header = {"type": "shape", "fields": {"person": 1, "height_m": 1.5}, "arrays": [["betas", "<f4", [2]]]}
    (shape,) = decode_all(wire(header, struct.pack("<2f", 0.5, -0.5)))
    assert struct.unpack("<2f", shape.betas.data) == (0.5, -0.5)


BAD = {
    "wrong magic": wire({}, magic=b"HTTP"),
    "short garbage": b"GE",
    "future version": wire({"type": "bye", "fields": {}, "arrays": []}, version=2),
    "header too large": p.MAGIC + struct.pack("<HHII", 1, 0, p.MAX_HEADER + 1, 0),
    "payload too large": p.MAGIC + struct.pack("<HHII", 1, 0, 2, p.MAX_PAYLOAD + 1),
    "not JSON": wire(b"{"),
    "not UTF-8": wire(b"\xff\xfe"),
    "deep JSON": wire(b"[" * 100_000),
    "not an object": wire([1]),
    "unknown type": wire({"type": "eval", "fields": {}, "arrays": []}),
    "type is a list": wire({"type": ["bye"], "fields": {}, "arrays": []}),
    "missing field": wire({"type": "choose", "fields": {}, "arrays": []}),
    "surplus field": wire({"type": "bye", "fields": {"x": 1}, "arrays": []}),
    "wrong field type": wire({"type": "choose", "fields": {"people": 1}, "arrays": []}),
    "bool as number": wire({"type": "shape", "fields": {"person": True, "height_m": 1.0}, "arrays": []}),
    "NaN": wire(b'{"type":"shape","fields":{"person":1,"height_m":NaN},"arrays":[]}'),
    "huge integer": wire(b'{"type":"shape","fields":{"person":1,"height_m":1' + b"0" * 400 + b'},"arrays":[]}'),
    "array as plain field": wire(
        {"type": "shape", "fields": {"person": 1, "height_m": 1, "betas": []}, "arrays": []}
    ),
    "array longer than payload": wire(
        {"type": "shape", "fields": {"person": 1, "height_m": 1}, "arrays": [["betas", "<f4", [9]]]}, b"1234"
    ),
    "payload left over": wire({"type": "bye", "fields": {}, "arrays": []}, b"1234"),
    "negative shape": wire(
        {"type": "shape", "fields": {"person": 1, "height_m": 1}, "arrays": [["betas", "<f4", [-1, -1]]]}, b"1234"
    ),
    "object dtype": wire({"type": "shape", "fields": {"person": 1, "height_m": 1}, "arrays": [["betas", "|O", [1]]]}),
    "array given twice": wire(
        {"type": "shape", "fields": {"person": 1, "height_m": 1}, "arrays": [["betas", "<f4", [0]]] * 2}
    ),
    "array for a plain field": wire(
        {"type": "shape", "fields": {"person": 1}, "arrays": [["height_m", "<f4", [1]]]}, b"1234"
    ),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_refused(data: bytes) -> None:
    with pytest.raises(p.ProtocolError):
        decode_all(data)


@pytest.mark.parametrize(
    "message",
    [
        p.Choose("all"),
        p.Shape(0, float("nan")),
        p.Shape(0, 1.0, betas=p.Array("<f4", (2,), b"123")),
        p.Job("x", {"key": object()}),
        p.Array("<f4", (0,), b""),
    ],
)
def test_encode_refuses_what_decode_would(message: object) -> None:
    with pytest.raises(p.ProtocolError):
        p.encode(message)


def assert_only_protocol_errors(data: bytes) -> None:
    started = time.perf_counter()
    try:
        decode_all(data)
    except p.ProtocolError:
        assert time.perf_counter() - started < 1.0


FUZZ = settings(max_examples=5000, deadline=1000, suppress_health_check=list(HealthCheck))
WHOLE = [p.encode(m) for m in CASES]


@FUZZ
@given(st.binary(max_size=200), st.booleans())
def test_fuzz_random_bytes(data: bytes, with_prefix: bool) -> None:
    prefix = p.MAGIC + struct.pack("<HHII", 1, 0, max(0, len(data) - 3), min(3, len(data)))
    assert_only_protocol_errors(prefix + data if with_prefix else data)


@FUZZ
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 1 << 16),
    st.binary(max_size=20),
)
def test_fuzz_mutated_messages(data: bytes, edits: list[tuple[int, int]], cut: int, tail: bytes) -> None:
    mutated = bytearray(data)
    for position, value in edits:
        mutated[position % len(mutated)] = value
    assert_only_protocol_errors(bytes(mutated[: cut % (len(mutated) + 1)]) + tail)
    assert_only_protocol_errors(bytes(mutated) + tail)


@pytest.mark.parametrize(
    "text, pairs",
    [
        ("arms:0,torso:0.06", {"arms": 0.0, "torso": 0.06}),
        (" arms : 1 , left_arm:.5", {"arms": 1.0, "left_arm": 0.5}),
        ("0:1.72", {"0": 1.72}),
        ("arms", None),
        ("arms:0:1", None),
        ("arms:", None),
        ("arms:0,arms:0", None),
        ("arms:0, arms:1", None),
        ("arms:0,", None),
        ("", None),
    ],
)
def test_pairs_of_a_command_line(text: str, pairs: dict | None) -> None:
    if pairs is None:
        with pytest.raises(ValueError):
            p.read_pairs(text)
    else:
        assert p.read_pairs(text) == pairs


@pytest.mark.parametrize("text, heights", [("1.72", 1.72), ("0:1.72,12:1.6", {0: 1.72, 12: 1.6}), ("2:1", {2: 1.0})])
def test_heights_of_a_command_line(text: str, heights: float | dict) -> None:
    found = p.read_heights(text)
    assert found == heights and type(found) is type(heights)


@pytest.mark.parametrize("text", ["", "tall", "1.72,1.6", "a:1.72", "0.5:1.72", "0:1.7,0:1.8", "0:1.7:2"])
def test_heights_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        p.read_heights(text)
