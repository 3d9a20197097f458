"""Tuning of the landmark network: backward pass against autograd, losses, scores, training, a whole tuning."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from core import __main__ as command
from core.errors import InputError
from core.models.checkpoint import read_network
from core.perception.blazepose import Convolution
from core.perception.checkpoint import DEFAULT_PATH
from core.skeleton import BLAZEPOSE_INDICES, KEYPOINT_MIRROR
from core.synth.crops import HIPS
from core.train.landmarks import run as run_module
from core.train.landmarks.features import to_images
from core.train.landmarks.footage import FootageConfig
from core.train.landmarks.objective import TuneLoss, flatten_far, footage_loss, rendered_loss
from core.train.landmarks.refit import RefitConfig
from core.train.landmarks.run import TuneOptions, tune_landmarks
from core.train.landmarks.score import score
from core.train.landmarks.tail import (
    REFITTED,
    TUNED,
    QuickConvolution,
    TailOutput,
    make_trainable,
    run_front,
    run_tail,
)
from core.train.landmarks.tune import TuneConfig, Tuner
from core.train.progress import History
from tests.landmarks.landmark_support import (
    made_up_footage,
    shaken,
    stored_arrays,
    the_frame,
)

MESH_NETWORK = DEFAULT_PATH.with_name("hyperbolic.safetensors")
KEPT = list(BLAZEPOSE_INDICES)


def test_pointwise_backward_is_that_of_autograd():
    """Products in bfloat16, whose numbers have 8 bits; sums of biases in float32."""
    plain = Convolution(24, 40, relu=True)
    x = torch.randn(3, 24, 9, 7).contiguous(memory_format=torch.channels_last)
    seed = torch.randn(3, 40, 9, 7)
    found = x.clone().requires_grad_(True)
    quick = QuickConvolution.of(plain)
    y = quick(found)
    (y * seed).sum().backward()
    gradients = [found.grad, quick.weight.grad.clone(), quick.bias.grad.clone()]
    given = x.double().requires_grad_(True)
    weight, bias = (p.detach().double().requires_grad_(True) for p in (plain.weight, plain.bias))
    expected = functional.relu6(functional.conv2d(given, weight, bias))
    (expected * seed.double()).sum().backward()
    torch.testing.assert_close(y, expected.float(), atol=1e-5, rtol=1e-5)
    for mine, true, share in zip(gradients, (given.grad, weight.grad, bias.grad), (1e-2, 1e-2, 1e-5)):
        assert float((mine - true).norm() / true.norm()) < share
    assert float((gradients[0] - given.grad).abs().max() / given.grad.abs().max()) < 2e-2


@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_backward_is_that_of_autograd(kernel):
    plain = Convolution(12, 12, kernel, groups=12, relu=True)
    x = torch.randn(2, 12, 8, 11)
    seed = torch.randn(2, 12, 8, 11)
    found = x.clone().contiguous(memory_format=torch.channels_last).requires_grad_(True)
    quick = QuickConvolution.of(plain)
    y = quick(found)
    (y * seed).sum().backward()
    given = x.double().requires_grad_(True)
    weight, bias = plain.weight.detach().double(), plain.bias.detach().double()
    expected = functional.relu6(functional.conv2d(given, weight, bias, padding=kernel // 2, groups=12))
    (expected * seed.double()).sum().backward()
    torch.testing.assert_close(y, expected.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.grad, given.grad.float(), atol=1e-5, rtol=1e-5)
    assert plain.weight.grad is None


def test_front_and_tail_are_the_network(original, pictures):
    images = to_images(pictures[:2])
    with torch.no_grad():
        whole = original(images)
        features = run_front(original, images)
        trainable = make_trainable(copy.deepcopy(original))
        for network in (original, trainable):
            parts = run_tail(network, features)
            for name in TailOutput._fields:
                torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=2e-3, rtol=1e-4)
    assert features.shape[1:] == (88, 16, 16)
    with_gradient = run_tail(trainable, features)
    torch.testing.assert_close(with_gradient.landmarks, whole.landmarks, atol=2e-3, rtol=1e-4)


def test_gradients_of_the_tail_point_where_autograds_do(original, pictures):
    """Through fifty layers of bfloat16 products; nothing but the tail's 1x1 convolutions and heads has one."""
    features = run_front(original, to_images(pictures[:2])).detach()
    quick, plain = make_trainable(copy.deepcopy(original)), copy.deepcopy(original).requires_grad_(True)
    seeds = torch.randn(2, 39, 5), 100 * torch.randn(2, 39, 3)
    for network in (quick, plain):
        output = run_tail(network, features.clone())
        ((output.landmarks * seeds[0]).sum() + (output.world * seeds[1]).sum()).backward()
    depthwise = {
        name for name, module in plain.named_modules() if isinstance(module, Convolution) and module.groups > 1
    }
    names = [n for n, _ in plain.named_parameters() if n.startswith(TUNED) and n.rpartition(".")[0] not in depthwise]
    assert names == [name for name, p in quick.named_parameters() if p.grad is not None]
    assert {"neck.mix.weight", "world_head.bias", "backbone.blocks.10.expand.weight"} < set(names)
    true = dict(plain.named_parameters())
    for name, parameter in quick.named_parameters():
        if name in names:
            assert functional.cosine_similarity(parameter.grad.flatten(), true[name].grad.flatten(), 0) > 0.98, name


def test_losses_by_hand(bank):
    batch = bank.every(2)
    generator = torch.Generator().manual_seed(0)
    B, weights = len(batch.xy), TuneLoss(soft_place=0.0, soft_world=0.0)
    landmarks = torch.rand((B, 39, 5), generator=generator) * 200
    world = torch.randn((B, 39, 3), generator=generator)
    landmarks[..., 3] = torch.randn((B, 39), generator=generator)
    found, _ = rendered_loss(TailOutput(landmarks, world, torch.zeros(B, 1152)), batch, weights)
    place = distance = visibility = aux = 0.0
    for b in range(B):
        kept = world[b, KEPT] - world[b, KEPT][HIPS].mean(0)
        for k, index in enumerate(KEPT):
            state = int(batch.hidden[b, k])
            share = {0: 1.0, 1: 0.6}.get(state, 0.2)
            off = float((landmarks[b, index, :2] - batch.xy[b, k]).norm()) / 256
            apart = float((kept[k] - batch.world[b, k]).norm())
            place += share * (off / 4 + 1.5 * 0.03 * np.log(1 + off / 0.03))
            distance += share * (apart / 4 + 1.5 * 0.12 * np.log(1 + apart / 0.12))
            logit = float(landmarks[b, index, 3])
            visibility += np.log1p(np.exp(-logit if state == 0 else logit))
        aux += sum(float((landmarks[b, 33 + i, :2] - batch.aux[b, i]).norm()) / 256 for i in range(2))
    expected = (10 * place + 1.5 * distance + 0.05 * visibility) / (25 * B) + 2 * aux / (2 * B)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    real = made_up_footage(bank).pick(np.arange(B))
    sure = real.confidence
    off, apart = (landmarks[..., :2] - real.points).norm(dim=-1) / 256, (world - real.world).norm(dim=-1)
    expected = 10 * (sure * off)[:, :35].mean() + 1.5 * (sure * apart)[:, :33].mean()
    found = footage_loss(TailOutput(landmarks, world, torch.zeros(B, 1152)), real, weights)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_scores_of_known_errors(bank):
    truth = bank.every(1)
    size = (truth.xy.amax(1) - truth.xy.amin(1)).amax(-1)
    zero = score(truth.xy, truth.world, truth)
    assert zero["mean"] == zero["median"] == zero["visible"] == zero["swapped"] == 0
    moved = truth.xy + torch.stack([size, 0 * size], -1)[:, None] / 17
    found = score(moved, truth.world * 0, truth)
    assert found["mean"] == pytest.approx(100, rel=1e-4) and found["visible"] == pytest.approx(100, rel=1e-4)
    assert found["world"] == pytest.approx(float(truth.world.norm(dim=-1).mean()) * 1000, rel=1e-4)
    assert score(truth.xy[:, list(KEYPOINT_MIRROR)], truth.world, truth)["swapped"] == 1


def a_tuner(original, bank, folder: Path, steps: int) -> Tuner:
    config = TuneConfig(budget_s=1e9, steps=steps, rendered=4, shards=2, real=2, warmup_steps=2)
    return Tuner(original, bank, made_up_footage(bank), None, config, History(folder / "history.jsonl"), folder)


def test_tuning_lowers_the_loss_and_leaves_the_rest(original, bank, tmp_path):
    tuner = a_tuner(original, bank, tmp_path, 5)
    with torch.no_grad():
        before = float(tuner.loss_of(0)[0])
    assert tuner.run()
    with torch.no_grad():
        after = float(tuner.loss_of(0)[0])
    assert after < 0.97 * before
    started, ended = original.state_dict(), tuner.network.state_dict()
    changed = {name for name in started if not torch.equal(started[name], ended[name])}
    learning = {name for name, p in tuner.network.named_parameters() if p.requires_grad}
    assert changed == learning and all(name.startswith(TUNED) for name in changed)
    assert not any("spatial" in name for name in changed)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == "loss" and rows[-1]["step"] == 5


def test_a_resumed_training_is_the_uninterrupted_one(original, bank, tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = a_tuner(original, bank, tmp_path / "whole", 3)
    whole.run()
    first = a_tuner(original, bank, tmp_path / "parts", 3)
    assert not first.run(should_stop=lambda: first.step == 2)
    second = a_tuner(original, bank, tmp_path / "parts", 3)
    assert second.step == 2 and second.run()
    for one, other in zip(whole.parameters + whole.average.averages, second.parameters + second.average.averages):
        assert torch.equal(one, other)
    one, other = (torch.load(t.checkpoint_path, weights_only=True)["optimizer"]["state"] for t in (whole, second))
    assert all(torch.equal(one[k][n], other[k][n]) for k in one for n in ("exp_avg", "exp_avg_sq", "step"))
    with pytest.raises(InputError, match="another network"):
        a_tuner(shaken(original), bank, tmp_path / "parts", 5)


def test_a_whole_tuning(folder, original, tmp_path, monkeypatch):
    """Footage of eight pictures, two steps: files, scores, and nothing but the later layers changed."""
    film = tmp_path / "film"
    film.mkdir()
    for k in range(8):
        cv2.imwrite(str(film / f"{k}.png"), the_frame()[0])
    options = TuneOptions(
        crops=folder,
        footage=(film,),
        out=tmp_path / "out",
        hyperbolic=MESH_NETWORK,
        tune=TuneConfig(budget_s=1e9, steps=2, rendered=4, shards=2, real=2, warmup_steps=1),
        films=FootageConfig(variants=1, empty_rendered=2, empty_every=1, empty_per_frame=2),
        refit=RefitConfig(lateral_steps=2, lateral_rendered=2, lateral_real=2),
    )
    titles = []
    scores = tune_landmarks(options, lambda title, *_: titles.append(title))
    assert set(scores) == {"original", "tuned", "refit"} and {"Reading footage", "Tuning", "Refitting"} <= set(titles)
    assert scores == json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [len(list(folder.glob(f"{s}-*.features.npy"))) for s in ("train", "validation")] == [2 * 2, 1]  # one copy
    (before, _), (after, _) = stored_arrays(DEFAULT_PATH), stored_arrays(tmp_path / "out" / "blazepose.safetensors")
    changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert all(name.startswith(tuple("landmarks." + t for t in (*TUNED, *REFITTED))) for name in changed)
    assert {"landmarks.presence_head.bias", "landmarks.neck.mix.weight"} <= changed
    assert (
        read_network(tmp_path / "out" / "hyperbolic.safetensors")[2]["stage"]
        == read_network(MESH_NETWORK)[2]["stage"]
    )
    monkeypatch.setattr(run_module, "collect_people", None)  # the footage is not read twice
    people, empty = run_module._footage(options, original, None, None)
    with np.load(tmp_path / "out" / "footage.npz") as known:
        assert len(people) == 8 and len(empty) == 2 + 2 * 8
        np.testing.assert_array_equal(people.confidence, known["confidence"])
    with pytest.raises(TypeError):
        run_module._footage(replace(options, films=FootageConfig(variants=2)), original, None, None)


def test_the_command_passes_on_how_many_copies(tmp_path, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(run_module, "tune_landmarks", lambda options, _: given.append(options.copies) or {})
    words = ["tune-landmarks", "--crops", str(tmp_path), "--footage", "film.mp4", "--out", str(tmp_path)]
    assert command.main(words) == command.main([*words, "--copies", "3"]) == 0
    assert given == [1, 3]
    assert command.main([*words, "--copies", "-1"]) != 0
    assert "--copies" in capsys.readouterr().err


def test_between_two_places_that_are_equally_likely_one_is_the_best():
    """Said in the middle of two places it costs more than at either; with plain distances it would cost the same."""
    at = torch.linspace(0, 1, 101)
    cost = flatten_far(at, 0.03) + flatten_far(1 - at, 0.03)
    assert cost.argmin() in (0, 100) and cost.argmax() == 50
    x = torch.tensor([1e-6, 0.03, 100.0], requires_grad=True)
    (slope,) = torch.autograd.grad(flatten_far(x, 0.03).sum(), x)
    torch.testing.assert_close(slope, torch.tensor([1.75, 1.0, 0.25]), atol=1e-3, rtol=0)
