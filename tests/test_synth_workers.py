"""Clips rendered by several processes are those that one process renders; the file of networks that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_synth_noise import small_bank

from core import __main__ as command
from core.body import load_body
from core.errors import HyperMocapError
from core.perception.checkpoint import load_networks, write_tuned_networks
from core.synth.dataset import DatasetConfig, make_dataset
from core.synth.motion import write_bank
from core.synth.workers import make_dataset_in_parallel

CONFIG = DatasetConfig(split="train", frames=3 * 4, clip_frames=4, batch=1, chunk=1, supersample=1)
LOGIT = 1.0


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """A file whose landmark network takes every crop for a person with probability sigmoid(LOGIT)."""
    path = tmp_path_factory.mktemp("networks") / "other.safetensors"
    bias, weight = np.full(1, LOGIT, np.float16), np.zeros((1, 288, 2, 2), np.float16)
    write_tuned_networks(path, {"presence_head.weight": weight, "presence_head.bias": bias})
    return path


def assert_read_with_them(path: Path) -> None:
    with np.load(path) as shard:
        np.testing.assert_allclose(shard["presence"], 1 / (1 + np.exp(-LOGIT)), atol=1e-3)


def test_two_processes_make_the_files_of_one(networks: Path, tmp_path: Path) -> None:
    bank = small_bank()
    write_bank(tmp_path / "bank.npz", bank)
    told = []
    make_dataset_in_parallel(
        tmp_path / "many",
        tmp_path / "bank.npz",
        config=CONFIG,
        workers=2,
        networks=networks,
        on_progress=lambda *values: told.append(values),
    )
    detector = load_networks(networks)[1]
    alone = make_dataset(tmp_path / "one", bank, load_body(), detector, config=CONFIG)
    assert sorted(p.name for p in (tmp_path / "many").iterdir()) == [p.name for p in alone]
    for path in alone:
        with np.load(path) as one, np.load(tmp_path / "many" / path.name) as other:
            for name in ("quats", "trans", "betas", "camera"):
                np.testing.assert_allclose(other[name].astype(float), one[name].astype(float), atol=2e-3)
        assert_read_with_them(tmp_path / "many" / path.name)
    assert told[-1] == (12, 12)


def test_a_failing_process_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HyperMocapError, match="exit code"):
        make_dataset_in_parallel(tmp_path, tmp_path / "none.npz", config=CONFIG, workers=2, on_progress=print)


def test_the_command_reads_with_the_networks_it_is_given(networks, tmp_path, monkeypatch, capsys) -> None:
    write_bank(tmp_path / "bank.npz", small_bank())
    words = ["synth", "clips", "--bank", tmp_path / "bank.npz", "--clip-frames", 2, "--batch", 1]
    words += ["--supersample", 1, "--out", tmp_path / "clips"]

    def call(*more: object) -> int:
        return command.main([str(word) for word in (*words, *more)])

    assert call("--frames", 2, "--networks", networks) == 0
    assert_read_with_them(tmp_path / "clips" / "train-s0-0000.npz")
    given = {}
    monkeypatch.setattr("core.synth.workers.make_dataset_in_parallel", lambda *_, **named: given.update(named))
    assert call("--frames", 4, "--workers", 2, "--networks", networks) == 0
    assert given["workers"] == 2 and Path(given["networks"]) == networks
    assert call("--frames", 6, "--networks", tmp_path / "none.safetensors") != 0
    assert "none.safetensors" in capsys.readouterr().err
