"""What follows from a tuning of the landmark network: presence, heat maps, the embedding's map, files."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from core.errors import InputError
from core.models.checkpoint import read_network
from core.perception.checkpoint import DEFAULT_PATH, load_networks, write_tuned_networks
from core.train.landmarks.features import to_input
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
from core.train.landmarks.run import round_parameters
from core.train.landmarks.tail import TUNED, make_trainable, tuned_state
from tests.landmarks.landmark_support import shaken, stored_arrays

MESH_NETWORK = DEFAULT_PATH.with_name("hyperbolic.safetensors")


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


def test_rounded_networks_are_those_of_their_file(original):
    rounded = round_parameters(make_trainable(shaken(original)))
    assert all(torch.equal(v, v.half().float()) for v in rounded.state_dict().values())
    assert not any(p.requires_grad for p in rounded.parameters())
