"""core.perception.blazepose, checkpoint and core.make.tflite, held to the TFLite interpreter.

tests/data/blazepose_golden.npz (made by make_blazepose_golden.py) carries the interpreter's answers for three crops
and a frame; the tests marked `oracle` ask the interpreter itself, given MediaPipe's files in MEDIAPIPE_MODULES.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from core.errors import SetupError
from core.make.perception import DETECTOR_FILE, LANDMARK_FILE, convert
from core.make.tflite import read_convolutions
from core.perception.blazepose import BlazePoseDetector, BlazePoseLandmarks, Convolution, depth_to_space, pack_weights
from core.perception.checkpoint import DEFAULT_PATH, load_networks
from core.perception.packed import can_pack

GOLDEN = Path(__file__).parent / "data" / "blazepose_golden.npz"
RELATIVE = 1e-3


@pytest.fixture(scope="module")
def networks() -> tuple[BlazePoseDetector, BlazePoseLandmarks]:
    return load_networks()


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as data:
        return dict(data)


def decode_rgb(png: np.ndarray) -> torch.Tensor:
    rgb = np.ascontiguousarray(cv2.imdecode(png, cv2.IMREAD_COLOR)[..., ::-1])
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def assert_close(ours: torch.Tensor, theirs: np.ndarray, relative: float = RELATIVE) -> None:
    """Largest difference, as a part of the largest value."""
    theirs = theirs.astype(np.float64)
    assert ours.shape == theirs.shape
    assert np.abs(ours.double().numpy() - theirs).max() <= relative * np.abs(theirs).max()


@pytest.mark.parametrize("k", range(3))
def test_landmarks_agree_with_the_interpreter(networks, golden, k):
    with torch.inference_mode():
        output = networks[1](decode_rgb(golden[f"crop{k}_png"]))
    landmarks = golden[f"crop{k}_landmarks"].reshape(1, 39, 5)
    assert np.abs(output.landmarks[..., :2].numpy() - landmarks[..., :2]).max() < 0.05  # px of 256
    assert_close(output.landmarks, landmarks)
    assert_close(output.world, golden[f"crop{k}_world"].reshape(1, 39, 3))
    assert_close(output.embedding, golden[f"crop{k}_embedding"].reshape(1, 1152))
    assert_close(output.presence[:, None], golden[f"crop{k}_presence"])
    assert_close(output.heatmaps[:, :, ::2, ::2].permute(0, 2, 3, 1), golden[f"crop{k}_heatmaps"])


def test_detector_agrees_with_the_interpreter(networks, golden):
    with torch.inference_mode():
        scores, boxes = networks[0](decode_rgb(golden["frame_png"]))
    assert_close(scores[..., None], golden["frame_scores"])
    assert_close(boxes, golden["frame_boxes"])


def test_batch_equals_single(networks, golden):
    crops = torch.cat([decode_rgb(golden[f"crop{k}_png"]) for k in range(3)])
    with torch.inference_mode():
        together = networks[1](crops.to(memory_format=torch.channels_last))
        alone = [networks[1](crop[None]) for crop in crops]
    for field in together._fields:
        one_by_one = torch.cat([getattr(output, field) for output in alone])
        torch.testing.assert_close(getattr(together, field), one_by_one, rtol=1e-3, atol=5e-3)


def test_packed_weights_change_no_answer(networks, golden):
    """For one person and for three: the landmarks stay within a hundredth of a pixel, and so does the detector."""
    if not can_pack():
        pytest.skip("this torch cannot pack convolutions")
    crops = torch.cat([decode_rgb(golden[f"crop{k}_png"]) for k in range(3)]).to(memory_format=torch.channels_last)
    frame = decode_rgb(golden["frame_png"])
    packed_detector, packed = load_networks()
    pack_weights(packed)
    pack_weights(packed_detector)
    with torch.inference_mode():
        for batch in (crops[:1], crops):
            plain, ours = networks[1](batch), packed(batch)
            assert (plain.landmarks - ours.landmarks).abs().max() < 0.01
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(packed_detector(frame), networks[0](frame), rtol=1e-4, atol=5e-3)
    convolutions = [m for n in (packed, packed_detector) for m in n.modules() if isinstance(m, Convolution)]
    assert all(m.packed is not None for m in convolutions)


def test_networks_stay_as_they_are_where_torch_cannot_pack(networks, golden, monkeypatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("core.perception.packed.pack_convolution", refuse)
    landmarks = load_networks()[1]
    pack_weights(landmarks)
    crop = decode_rgb(golden["crop0_png"])
    with torch.inference_mode():
        torch.testing.assert_close(landmarks(crop), networks[1](crop))
    assert not any(m.packed is not None for m in landmarks.modules() if isinstance(m, Convolution))


def test_half_precision_stays_near(golden):
    """What a GPU computes in float16 (here the CPU does): within 0.5 px and 1 % of the embedding's range."""
    landmarks = load_networks()[1].reduce_precision()
    crops = torch.cat([decode_rgb(golden[f"crop{k}_png"]) for k in range(3)])
    with torch.inference_mode():
        output = landmarks(crops.half())
    expected = np.concatenate([golden[f"crop{k}_landmarks"].reshape(1, 39, 5) for k in range(3)])
    assert output.landmarks.dtype == torch.float32
    assert np.abs(output.landmarks[:, :33, :2].numpy() - expected[:, :33, :2]).max() < 0.5
    embeddings = np.concatenate([golden[f"crop{k}_embedding"].reshape(1, 1152) for k in range(3)])
    assert np.abs(output.embedding.float().numpy() - embeddings).max() < 0.01 * embeddings.max()


def test_depth_to_space_orders_channels_as_tensorflow_does():
    x = torch.arange(8.0).reshape(1, 8, 1, 1)  # block row, block column, channel
    assert depth_to_space(x)[0].tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]


def test_missing_weights_are_explained(tmp_path, monkeypatch):
    path = tmp_path / "none.safetensors"
    with pytest.raises(SetupError, match="missing.*another file"):
        load_networks(path)
    monkeypatch.setattr("core.perception.checkpoint.DEFAULT_PATH", path)
    with pytest.raises(SetupError, match="missing.*Reinstall"):
        load_networks()


def test_truncated_weights_are_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(DEFAULT_PATH.read_bytes()[:100_000])
    with pytest.raises(SetupError, match="damaged"):
        load_networks(path)


def test_one_changed_bit_is_noticed(tmp_path):
    data = bytearray(DEFAULT_PATH.read_bytes())
    data[-1000] ^= 1
    path = tmp_path / "bit.safetensors"
    path.write_bytes(data)
    with pytest.raises(SetupError, match="checksum"):
        load_networks(path)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(SetupError, match="not a file of perception weights"):
        load_networks(path)


def test_only_tflite_is_read_as_tflite():
    with pytest.raises(ValueError, match="TFL3"):
        read_convolutions(b"PK\x03\x04" + bytes(64))


@pytest.fixture(scope="module")
def modules() -> Path:
    pytest.importorskip("ai_edge_litert.interpreter")
    folder = os.environ.get("MEDIAPIPE_MODULES")
    if not folder:
        pytest.skip("MEDIAPIPE_MODULES does not name the folder of MediaPipe's .tflite files")
    return Path(folder)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["noise", "dark", "bright"])
def test_networks_agree_on_any_image(networks, modules, kind):
    from make_blazepose_golden import run_interpreter, with_shipped_weights

    rng = np.random.default_rng(7)
    image = rng.random((1, 256, 256, 3), np.float32) * {"noise": 1, "dark": 0.05, "bright": 0.1}[kind]
    image += np.float32(0.9 if kind == "bright" else 0)
    tensor = torch.from_numpy(image).permute(0, 3, 1, 2)
    with torch.inference_mode():
        output = networks[1](tensor)
        scores, boxes = networks[0](tensor[..., 16:240, 16:240])
    theirs = run_interpreter(with_shipped_weights(next(modules.rglob(LANDMARK_FILE)).read_bytes()), image)
    assert_close(output.landmarks.reshape(1, -1), theirs["Identity"])
    assert_close(output.world.reshape(1, -1), theirs["Identity_4"])
    assert_close(output.heatmaps.permute(0, 2, 3, 1), theirs["Identity_3"])
    theirs = run_interpreter(next(modules.rglob(DETECTOR_FILE)).read_bytes(), image[:, 16:240, 16:240] * 2 - 1)
    assert_close(scores[..., None], theirs["Identity_1"])
    assert_close(boxes, theirs["Identity"])


@pytest.mark.oracle
def test_conversion_gives_what_was_not_tuned(modules, tmp_path):
    """Bit for bit: the detector, and of the landmark network what `core.train.landmarks` leaves alone."""
    convert(modules, tmp_path / "again.safetensors")
    ours, again = load_file(DEFAULT_PATH), load_file(tmp_path / "again.safetensors")
    assert ours.keys() == again.keys()
    changed = {name for name, array in ours.items() if not np.array_equal(array, again[name])}
    parts = ("backbone.blocks.1", "backbone.expand", "lateral8", "neck", "regressor", "landmark_head", "world_head")
    assert changed
    assert all(name.startswith(tuple(f"landmarks.{part}" for part in (*parts, "presence_head"))) for name in changed)
    assert not any(name.startswith("landmarks.backbone.blocks.1.") for name in changed)
