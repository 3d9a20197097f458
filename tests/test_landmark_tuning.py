"""Tuning of the landmark network: backward pass against autograd, pseudo truth, training, refits, files."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional

from core.errors import InputError
from core.models.checkpoint import read_network
from core.perception.blazepose import Convolution
from core.perception.checkpoint import DEFAULT_PATH, load_networks, write_tuned_networks
from core.perception.reading import LANDMARK_MIRROR
from core.perception.roi import Roi, crop_to_image
from core.skeleton import BLAZEPOSE_INDICES, KEYPOINT_MIRROR
from core.synth.crops import HIPS, Displacement, encode, write_crops
from core.train.landmarks import features as features_module
from core.train.landmarks import run as run_module
from core.train.landmarks.features import CropBank, CropBatch, to_images, to_input
from core.train.landmarks.footage import FootageBank, FootageConfig, _crops_of, carry, read_twice
from core.train.landmarks.objective import TuneLoss, flatten_far, footage_loss, rendered_loss
from core.train.landmarks.refit import (
    RefitConfig,
    distil_lateral,
    embed,
    fit_lateral,
    fit_linear,
    fit_presence,
    fold_embedding_map,
    lateral_agreement,
    normalised,
    presence_logits,
    write_folded,
)
from core.train.landmarks.run import TuneOptions, round_parameters, tune_landmarks
from core.train.landmarks.score import score
from core.train.landmarks.tail import (
    REFITTED,
    TUNED,
    QuickConvolution,
    TailOutput,
    make_trainable,
    run_front,
    run_tail,
    tuned_state,
)
from core.train.landmarks.tune import TuneConfig, Tuner
from core.train.progress import History
from core.video import VideoReader

DATA = Path(__file__).parent / "data"
MESH_NETWORK = DEFAULT_PATH.with_name("hyperbolic.safetensors")
KEPT = list(BLAZEPOSE_INDICES)


@pytest.fixture(scope="module")
def original():
    return load_networks()[1].to(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def frame():
    """A frame of the demo clip, BGR, and its person's keypoints [25, 2] px."""
    with VideoReader(DATA / "demo.mp4") as reader:
        picture = next(iter(reader)).image
    with np.load(DATA / "demo_truth.npz") as truth:
        return picture, truth["keypoints"][0]


@pytest.fixture(scope="module")
def pictures(frame, original):
    """Six crops [256, 256, 3] uint8 RGB of the demo's person."""
    config = FootageConfig(variants=6, off=Displacement())
    return np.stack([row[0] for row in _crops_of(*frame, original, config, np.random.default_rng(0))])


def write_shard(path: Path, pictures: np.ndarray, seed: int = 0) -> None:
    """A shard of these pictures with made-up truth."""
    rng, N = np.random.default_rng(seed), len(pictures)
    coded = [encode(picture) for picture in pictures]
    write_crops(
        path,
        {
            "jpeg": np.concatenate(coded),
            "offset": np.cumsum([0, *map(len, coded)]),
            "xy": rng.uniform(40, 216, (N, 25, 2)).astype(np.float32),
            "world": rng.normal(0, 0.4, (N, 25, 3)).astype(np.float32),
            "aux": rng.uniform(40, 216, (N, 2, 2)).astype(np.float32),
            "hidden": rng.integers(0, 3, (N, 25)).astype(np.uint8),
            "roi": np.ones((N, 4), np.float32),
        },
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures, original):
    folder = tmp_path_factory.mktemp("crops")
    write_shard(folder / "train-s0-0000.npz", pictures[:3], 0)
    write_shard(folder / "train-s0-0001.npz", pictures[3:], 1)
    write_shard(folder / "validation-s0-0000.npz", pictures[:2], 2)
    return folder


@pytest.fixture(scope="module")
def bank(folder, original):
    return CropBank(folder, "train", original)


def made_up_footage(bank: CropBank) -> FootageBank:
    rng, N = np.random.default_rng(4), len(bank)
    points, world = rng.uniform(40, 216, (N, 39, 2)), rng.normal(0, 0.4, (N, 39, 3))
    truth = (points.astype(np.float32), world.astype(np.float32), rng.random((N, 39)).astype(np.float32))
    return FootageBank(bank.stored(1), *truth)


def shaken(network, amount: float = 0.02):
    """A copy whose tail is another one, a little."""
    network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.startswith(TUNED):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += amount * parameter.square().mean().sqrt() * noise
    return network


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


def test_the_reading_of_a_mirrored_crop_is_the_mirrored_reading(original, pictures):
    reading, mirrored = (
        read_twice(original, pictures[0]),
        read_twice(original, np.ascontiguousarray(pictures[0][:, ::-1])),
    )
    sides = list(LANDMARK_MIRROR)
    points = mirrored.points[:, sides] * torch.tensor([-1.0, 1.0]) + torch.tensor([256.0, 0.0])
    torch.testing.assert_close(points, reading.points, atol=1e-2, rtol=0)
    torch.testing.assert_close(mirrored.confidence[:, sides], reading.confidence, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        mirrored.world[:, sides] * torch.tensor([-1.0, 1, 1]), reading.world, atol=1e-4, rtol=0
    )


def test_mirrored_crops_carry_the_mirrored_reading(frame, original):
    """The same crops with and without mirroring: pictures, points, world landmarks and confidence go over."""
    plain, mirrored = (
        _crops_of(*frame, original, FootageConfig(recoloured=0, mirrored=share, variants=2), np.random.default_rng(3))
        for share in (0.0, 1.0)
    )
    for one, other in zip(plain, mirrored, strict=True):
        np.testing.assert_array_equal(one[0][:, ::-1], other[0])
        for k, left in enumerate(LANDMARK_MIRROR):
            np.testing.assert_allclose(other[1][k], [256 - one[1][left, 0], one[1][left, 1]], atol=1e-3)
            np.testing.assert_allclose(other[2][k], one[2][left] * [-1, 1, 1], atol=1e-6)
            assert other[3][k] == one[3][left]


def test_a_carried_reading_stays_where_it_is_in_the_picture(original, pictures):
    """Points by the picture; world landmarks turned by the crops' angles with OpenCV's rotation."""
    reading = read_twice(original, pictures[0])
    base = Roi(torch.tensor([[300.0, 200.0]]), torch.tensor([260.0]), torch.tensor([0.2]))
    other = Roi(torch.tensor([[320.0, 190.0]]), torch.tensor([300.0]), torch.tensor([-0.5]))
    carried = carry(reading, base, other)
    there, here = crop_to_image(carried.points, other), crop_to_image(reading.points, base)
    torch.testing.assert_close(there, here, atol=1e-3, rtol=0)
    turn = [cv2.Rodrigues(np.array([0.0, 0.0, float(roi.angle)]))[0] for roi in (base, other)]
    expected = reading.world[0].double().numpy() @ turn[0].T @ turn[1]
    np.testing.assert_allclose(carried.world[0], expected, atol=1e-5)


def test_features_are_made_once_and_not_taken_for_others(folder, bank, original, pictures, tmp_path, monkeypatch):
    stored = bank.stored(1)
    with torch.no_grad():
        expected = run_front(
            original, to_images(features_module.decode_crops(features_module.read_crops(bank.paths[0]), np.arange(3)))
        )
    torch.testing.assert_close(to_input(stored[:3]), expected, atol=2e-2, rtol=2e-3)
    monkeypatch.setattr(features_module, "front_features", None)
    np.testing.assert_array_equal(CropBank(folder, "train", original).stored(1), stored)
    other = copy.deepcopy(original)
    other.backbone.stem.bias.data[0] += 0.1
    with pytest.raises(TypeError):
        CropBank(folder, "train", other)
    with pytest.raises(InputError, match="synth crops"):
        CropBank(tmp_path, "train", original)


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


def test_ridge_regression_finds_a_map_and_heeds_weights():
    generator = torch.Generator().manual_seed(0)
    x, true = (torch.randn(size, generator=generator).double() for size in ((300, 12), (12, 5)))
    y = x @ true
    y[200:] += 50.0
    weights = (torch.arange(300) < 200).float()
    torch.testing.assert_close(fit_linear(x, y, weights, 1e-9), true, atol=1e-6, rtol=0)
    assert fit_linear(x, y, weights, 1.0).norm() < 0.9 * true.norm()


def test_presence_is_that_of_the_fitted_head(original, bank):
    """As the network computes it from its own embeddings, whose order of channels the fit has to know."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn((1400, 1152), generator=generator)
    network = copy.deepcopy(original)
    fit_presence(network, embedding, presence_logits(original, embedding), torch.ones(1400), 1e-9)
    torch.testing.assert_close(network.presence_head.weight, original.presence_head.weight, atol=1e-4, rtol=0)
    features = bank.stored(1)
    with torch.no_grad():
        grid = original.regressor(original.neck(features_of_deep(original, features)))
        expected = original.presence_head(grid).reshape(-1)
    torch.testing.assert_close(presence_logits(original, embed(original, features)), expected, atol=1e-3, rtol=1e-4)


def features_of_deep(network, features):
    x = to_input(features)
    for block in network.backbone.blocks[10:]:
        x = block(x)
    return network.backbone.spatial(network.backbone.expand(x))


def test_heat_maps_come_back(original, bank):
    network = shaken(original, 0.05)
    features = bank.stored(1)
    before = lateral_agreement(original, network, features, features)
    kept = {k: v.clone() for k, v in network.state_dict().items() if not k.startswith("lateral8.")}
    config = RefitConfig(lateral_steps=12, lateral_rendered=2, lateral_real=2)
    distil_lateral(original, network, features, features, config)
    assert lateral_agreement(original, network, features, features) > before + 0.05 * (1 - before)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in kept.items())


def test_heat_maps_that_need_no_fit_stay(original, bank):
    features = bank.stored(1)
    network = shaken(original, 1e-4)
    config = RefitConfig(lateral_steps=2, lateral_rendered=2, lateral_real=2, lateral_rate=0.1)
    before, after = fit_lateral(original, network, features, features, config)
    assert before == after > 0.999
    assert torch.equal(network.lateral8.mix.weight, original.lateral8.mix.weight)


def test_the_folded_map_gives_what_the_unfolded_gave(tmp_path):
    """project_features of the mapped embedding before, of the embedding itself after; zeros stay zeros; no other
    tensor changes."""
    generator = torch.Generator().manual_seed(0)
    A = torch.eye(1152) + 0.02 * torch.randn((1152, 1152), generator=generator)
    embedding = normalised(torch.randn((20, 1152), generator=generator))
    tensors, config, info = read_network(MESH_NETWORK)
    weight, bias = tensors["project_features.weight"], tensors["project_features.bias"]
    folded = fold_embedding_map(tensors, A)["project_features.weight"]
    before = functional.linear(embedding @ A, weight, bias)
    torch.testing.assert_close(functional.linear(embedding, folded, bias), before, atol=1e-4, rtol=1e-4)
    write_folded(tmp_path / "mesh.safetensors", MESH_NETWORK, A)
    written, same, told = read_network(tmp_path / "mesh.safetensors")
    torch.testing.assert_close(written["project_features.weight"], folded, atol=1e-3, rtol=1e-3)
    assert same == config and told["stage"] == info["stage"] and "tuned" in told["notes"]["embedding"]
    assert all(torch.equal(written[name], tensors[name]) for name in tensors if name != "project_features.weight")
    with pytest.raises(InputError, match="numbers"):
        write_folded(tmp_path / "no.safetensors", MESH_NETWORK, torch.eye(7))


def stored_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118


def test_written_networks_keep_what_was_not_tuned(original, tmp_path):
    tuned = {k: v.half().contiguous().numpy() for k, v in tuned_state(shaken(original)).items()}
    path = tmp_path / "blazepose.safetensors"
    write_tuned_networks(path, tuned)
    (before, _), (after, about) = stored_arrays(DEFAULT_PATH), stored_arrays(path)
    assert before.keys() == after.keys() and "later layers were tuned" in about["source"]
    changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert changed and all(name.startswith(tuple("landmarks." + t for t in TUNED)) for name in changed)
    network = load_networks(path)[1].state_dict()
    assert all(np.array_equal(network[name].half().numpy(), value) for name, value in tuned.items())
    write_tuned_networks(tmp_path / "again.safetensors", tuned, start=path)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    for name, array in (("neck.none", np.zeros(1, np.float16)), ("neck.mix.bias", np.zeros(288, np.float32))):
        with pytest.raises(ValueError, match="neck"):
            write_tuned_networks(path, {name: array})


def test_a_whole_tuning(folder, frame, original, tmp_path, monkeypatch):
    """Footage of eight pictures, two steps: files, scores, and nothing but the later layers changed."""
    film = tmp_path / "film"
    film.mkdir()
    for k in range(8):
        cv2.imwrite(str(film / f"{k}.png"), frame[0])
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


def test_rounded_networks_are_those_of_their_file(original):
    rounded = round_parameters(make_trainable(shaken(original)))
    assert all(torch.equal(v, v.half().float()) for v in rounded.state_dict().values())
    assert not any(p.requires_grad for p in rounded.parameters())


def test_an_original_batch_has_its_own_truth(bank):
    """Rows drawn from several shards keep features and truth together."""
    drawn = bank.draw(6, torch.Generator().manual_seed(0), shards=3)
    every = bank.every(1)
    assert isinstance(drawn, CropBatch) and len(drawn.xy) == 6
    for i in range(6):
        row = int((every.xy - drawn.xy[i]).abs().sum((1, 2)).argmin())
        assert torch.equal(every.features[row], drawn.features[i]) and torch.equal(every.world[row], drawn.world[i])


def test_between_two_places_that_are_equally_likely_one_is_the_best():
    """Said in the middle of two places it costs more than at either; with plain distances it would cost the same."""
    at = torch.linspace(0, 1, 101)
    cost = flatten_far(at, 0.03) + flatten_far(1 - at, 0.03)
    assert cost.argmin() in (0, 100) and cost.argmax() == 50
    x = torch.tensor([1e-6, 0.03, 100.0], requires_grad=True)
    (slope,) = torch.autograd.grad(flatten_far(x, 0.03).sum(), x)
    torch.testing.assert_close(slope, torch.tensor([1.75, 1.0, 0.25]), atol=1e-3, rtol=0)
