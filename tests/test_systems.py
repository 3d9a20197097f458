"""core.systems: what the four related systems share: files, settings, training, and recovery over a track."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.body import load_body
from core.coarse import build_coarse
from core.errors import InputError, SetupError
from core.models.checkpoint import load_network
from core.models.config import from_dict
from core.recover import METHODS
from core.rotation import axis_angle_to_matrix
from core.systems import registry, training
from core.systems.contract import image_features, take_windows
from core.systems.kinematics import Kinematics
from core.systems.registry import SYSTEMS, load_system, new_system, save_system
from core.train.config import StageConfig, read_settings
from core.train.data import TrainOptions
from tests.motion_maker import CAMERA, make_track, make_truth
from tests.training_support import a_batch

NAMES = sorted(SYSTEMS)
SMALL = {
    "pmce": {"window": 4, "pose_dim": 16, "pose_depth": 1, "pose_heads": 2, "token_dim": 4, "image_dim": 16,
             "gru_layers": 1, "dim": 16, "depth": 1, "joint_heads": 2, "vertex_heads": 2, "upsample_rank": 2,
             "residual_rank": 2},
    "tcmr": {"window": 4, "static_dim": 16, "hidden": 8, "common": 16, "squeezed": 8, "regressor_hidden": 16},
    "lmr": {"window": 4, "feature_size": 16, "hidden": 8, "layers": 1, "shape_hidden": 16, "stride": 2},
    "posture": {"mesh2d_dim": 16, "mesh2d_depth": 1, "embed_dim": 8, "dim": 16, "layers": 1, "heads": 2,
                "frame_dim": 8, "upsample_rank": 2, "residual_rank": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module", autouse=True)
def coarse_once(body):
    """Decimating takes seconds; the same coarse mesh does for all."""
    coarse = build_coarse(body, registry.COARSE_VERTICES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "build_coarse", lambda *_: coarse)
        yield


def a_system(name: str, body, *, feature_dim: int = 6):
    torch.manual_seed(3)
    config = from_dict(SYSTEMS[name].config_class, SMALL[name] | {"feature_dim": feature_dim})
    return new_system(name, config, body).eval()


def estimates(net, *, frames: int = 5):
    batch = a_batch(2, frames)
    mids = torch.arange(frames)
    with torch.inference_mode():
        return net.recover(batch.inputs(), batch.features, torch.ones_like(mids), mids, torch.arange(0, 900, 7))


@pytest.mark.parametrize("name", NAMES)
def test_a_system_comes_back_from_its_file_as_it_was(name, body, tmp_path):
    net = a_system(name, body)
    for parameter in net.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    save_system(tmp_path / "net.safetensors", net, notes={"why": "test"}, half=False)
    again = load_system(tmp_path / "net.safetensors", body)
    assert type(again) is type(net) and again.config == net.config and not again.training
    for old, new in zip(estimates(net), estimates(again), strict=True):
        assert (old is None) == (new is None)
        if old is not None:
            torch.testing.assert_close(new, old)


@pytest.mark.parametrize("name", NAMES)
def test_an_estimate_is_a_body_whichever_parts_it_has(name, body):
    found = estimates(a_system(name, body))
    assert found.joints.shape == (5, 24, 3) and found.joints.isfinite().all()
    assert found.vertices is not None or found.rotmats is not None
    height = found.joints[..., 1].amax(1) - found.joints[..., 1].amin(1)
    assert ((height > 0.5) & (height < 2.5)).all()
    head, foot = found.joints[:, 15, 1], found.joints[:, 10, 1]
    assert (head < foot).all()  # y is down: an untrained network gives somebody upright
    if found.vertices is not None:
        assert found.vertices.shape == (5, 129, 3)


def test_files_of_other_networks_are_refused(body, tmp_path):
    path = tmp_path / "lmr.safetensors"
    save_system(path, a_system("lmr", body))
    with pytest.raises(SetupError, match="'lmr', not the hyperbolic one"):
        load_network(path, body)
    shipped = Path(registry.WEIGHTS) / "hyperbolic.safetensors"
    with pytest.raises(SetupError, match="holds no network of pmce, tcmr, lmr, posture"):
        load_system(shipped, body)
    damaged = tmp_path / "damaged.safetensors"
    data = bytearray(path.read_bytes())
    data[-8] ^= 255
    damaged.write_bytes(data)
    with pytest.raises(SetupError, match="damaged"):
        load_system(damaged, body)


def test_a_file_whose_tensors_do_not_fit_is_refused(body, tmp_path):
    net = a_system("tcmr", body)
    name = next(iter(net.state_dict()))
    state = {k: v for k, v in net.state_dict().items() if k != name}
    net.state_dict = lambda: state
    save_system(tmp_path / "net.safetensors", net)
    with pytest.raises(SetupError, match="does not fit"):
        load_system(tmp_path / "net.safetensors", body)


def test_an_unknown_system_is_named():
    with pytest.raises(InputError, match="'vibe': use one of pmce, tcmr, lmr, posture"):
        registry.system_kind("vibe")


def test_windows_repeat_the_clip_s_edges():
    values = torch.arange(10.0).reshape(1, 10, 1)
    taken = take_windows(values, torch.zeros(3, dtype=torch.int64), torch.tensor([0, 5, 9]), 4)[..., 0]
    assert taken.tolist() == [[0, 0, 0, 1], [3, 4, 5, 6], [7, 8, 9, 9]]


def test_frames_without_an_embedding_have_zeros_there():
    batch = a_batch(2, 3)
    none = image_features(batch.inputs(), torch.zeros(2, 3, 6))
    some = image_features(batch.inputs(), batch.features)
    assert none.shape == (2, 3, 6 + 25 * 15) and not none[..., :6].any()
    expected = (batch.features - batch.features.mean(-1, keepdim=True)) / batch.features.var(
        -1, unbiased=False, keepdim=True
    ).sqrt()
    torch.testing.assert_close(some[..., :6], expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(some[..., 6:], batch.inputs().flatten(2))


def test_kinematics_are_the_body_s(body):
    net = Kinematics(registry.known_coarse_body(body, torch.arange(3), torch.zeros(1, 3, dtype=torch.int32)))
    rotmats, betas = axis_angle_to_matrix(0.5 * torch.randn(4, 24, 3)), torch.randn(4, 16)
    wanted, _ = body.forward_kinematics(rotmats, betas, torch.zeros(4, 3))
    torch.testing.assert_close(net(rotmats, betas), wanted - wanted[:, :1], atol=1e-5, rtol=0)


class MadeUpData:
    """In place of the sources: the same batch again and again."""

    def __init__(self, options, body):
        pass

    def describe(self) -> str:
        return "made up"

    def draw(self, stage, *, with_features):
        assert with_features
        return lambda: a_batch(6, stage.window)

    def validation(self, window):
        return {"gen": a_batch(2, window, seed=4)}


def a_training(name: str, out: Path, *, steps: int) -> TrainOptions:
    config = training.SystemConfig(
        system=name,
        network=from_dict(SYSTEMS[name].config_class, SMALL[name] | {"feature_dim": 6}),
        stages={
            stage: StageConfig(budget_s=1e9, steps=steps, window=4, warmup_steps=1, learning_rate=3e-3)
            for stage in SYSTEMS[name].objective_class.STAGES
        },
        validate_every_s=1e9,
    )
    return TrainOptions(config=config, out=out)


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_is_trained_and_a_stopped_training_goes_on(name, body, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "TrainingData", MadeUpData)
    options = a_training(name, tmp_path, steps=12)
    assert training.train_system(replace(options, stop_after_s=-1.0)) == {}
    metrics = training.train_system(options)
    assert metrics["step"] == 12 and math.isfinite(metrics["gen_mpjpe"]) and metrics["gen_mpvpe"] > 0
    history = training.History(tmp_path / "history.jsonl")
    for stage in SYSTEMS[name].objective_class.STAGES:
        losses = history.series(stage, "loss", "total")
        assert len(losses) == 2 and np.isfinite(losses).all(), stage
    written = load_system(tmp_path / f"{name}.safetensors", body)
    start = dict(a_system(name, body).named_parameters())
    moved = [n for n, p in written.named_parameters() if not torch.allclose(p, start[n], atol=1e-3)]
    assert len(moved) > 0.3 * len(start)
    count = len(history.rows)
    training.train_system(options)  # nothing is left to do
    assert len(training.History(tmp_path / "history.jsonl").rows) == count


@pytest.mark.parametrize("name", NAMES)
def test_validation_measures_in_millimetres(name, body):
    net = a_system(name, body)
    batch = a_batch(1, 4)
    metrics = training.system_metrics(net, body, batch, frames=2)
    truth = training.Truth(body, batch)
    mids = torch.tensor([1, 2])
    found = net.recover(batch.inputs(), batch.features, torch.zeros_like(mids), mids)
    by_hand = (found.joints - found.joints[:, :1] - truth.joints[0, 1:3]).norm(dim=-1).mean() * 1000
    assert metrics["mpjpe"] == pytest.approx(by_hand.item(), rel=1e-4)
    assert 0 < metrics["pa"] <= metrics["mpjpe"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("refine", [False, True])
def test_a_track_is_recovered_whole_and_meets_the_picture(name, refine, body):
    count = 40
    truth = make_truth(body, count)
    track = replace(make_track(truth), features=np.zeros((count, 6), np.float16))
    sent, progress = [], []
    motion = METHODS[name](
        track, CAMERA, body, net=a_system(name, body), refine=refine,
        on_frames=sent.append, on_progress=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    assert len(motion) == count and sum(len(part) for part in sent) == count
    assert progress[-1] == (count, count)
    products = motion.rotmats @ motion.rotmats.swapaxes(-1, -2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-4)
    depth = np.abs(motion.trans[:, 2] - truth.trans[:, 2]) / truth.trans[:, 2]
    assert np.median(depth) < 0.5  # an untrained pose, but placed where its size in the picture says


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_recovery_returns_what_it_has(name, body):
    track = replace(make_track(make_truth(body, 80)), features=np.zeros((80, 6), np.float16))
    sent = []
    motion = METHODS[name](
        track, CAMERA, body, net=a_system(name, body), refine=False,
        on_frames=sent.append, should_stop=lambda: len(sent) > 0,
    )  # fmt: skip
    assert 0 < len(motion) < 80


def test_every_system_is_a_method_and_says_what_is_missing(body, tmp_path, monkeypatch):
    assert set(SYSTEMS) < set(METHODS)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    from core.recover.shipped import shipped_network

    shipped_network.cache_clear()
    with pytest.raises(SetupError, match="lmr.safetensors is missing"):
        METHODS["lmr"](make_track(make_truth(body, 4)), CAMERA, body)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_settings_can_be_read(name):
    values = read_settings(SYSTEMS[name].settings)
    config = training.system_config(values, "settings")
    assert config.system == name and set(config.stages) == set(SYSTEMS[name].objective_class.STAGES)
    with pytest.raises(InputError, match="trained in the stages"):
        training.system_config(values | {"stages": {}}, "settings")
    with pytest.raises(InputError, match="has no windows"):
        training.system_config(values | {"network": {"windows": 3}}, "settings")
