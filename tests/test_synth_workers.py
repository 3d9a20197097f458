"""Clips rendered by several processes are those that one process renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_synth_noise import small_bank

from core.body import load_body
from core.errors import HyperMocapError
from core.perception.checkpoint import load_networks
from core.synth.dataset import DatasetConfig, make_dataset
from core.synth.motion import write_bank
from core.synth.workers import make_dataset_in_parallel

CONFIG = DatasetConfig(split="train", frames=3 * 4, clip_frames=4, batch=1, chunk=1, supersample=1)


def test_two_processes_make_the_files_of_one(tmp_path: Path) -> None:
    bank = small_bank()
    write_bank(tmp_path / "bank.npz", bank)
    told = []
    make_dataset_in_parallel(
        tmp_path / "many",
        tmp_path / "bank.npz",
        config=CONFIG,
        workers=2,
        on_progress=lambda *values: told.append(values),
    )
    detector = load_networks()[1]
    alone = make_dataset(tmp_path / "one", bank, load_body(), detector, config=CONFIG)
    assert sorted(p.name for p in (tmp_path / "many").iterdir()) == [p.name for p in alone]
    for path in alone:
        with np.load(path) as one, np.load(tmp_path / "many" / path.name) as other:
            for name in ("quats", "trans", "betas", "camera"):
                np.testing.assert_allclose(other[name].astype(float), one[name].astype(float), atol=2e-3)
    assert told[-1] == (12, 12)


def test_a_failing_process_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HyperMocapError, match="exit code"):
        make_dataset_in_parallel(tmp_path, tmp_path / "none.npz", config=CONFIG, workers=2, on_progress=print)
