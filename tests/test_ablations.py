"""The table of ablations; what the variants switch."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from core.errors import InputError
from core.models.config import HyperbolicConfig
from core.train import ablations
from core.train.config import TrainConfig
from core.train.data import TrainOptions


def test_variants_are_configurations_that_exist() -> None:
    known = {f.name for f in fields(HyperbolicConfig)}
    for changes in (ablations.VARIANTS | ablations.CHOICES).values():
        assert set(changes) <= known
        replace(HyperbolicConfig(), **changes)  # refuses what does not go together
    assert HyperbolicConfig() == replace(HyperbolicConfig(), **ablations.VARIANTS["full"])


def test_without_a_lifter_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--start-from"):
        ablations.run_ablations(TrainOptions(TrainConfig(), tmp_path), seeds=(1,), on_done=print)


def test_finished_variants_are_read_and_averaged(tmp_path: Path, monkeypatch) -> None:
    trained = []

    def train(options: TrainOptions) -> None:
        options.out.mkdir()
        trained.append(options)

    monkeypatch.setattr(ablations, "train", train)
    monkeypatch.setattr(
        ablations, "measure", lambda *_: {"mpjpe": 80.0 + len(trained), "pa": 50.0, "mpvpe": 90.0, "accel": 5.0}
    )
    options = TrainOptions(TrainConfig(), tmp_path, shards=tmp_path, start_from=tmp_path / "lifter.safetensors")
    done = tmp_path / "full-2"
    done.mkdir()
    (done / "test.json").write_text(json.dumps({"mpjpe": 101.0, "pa": 60.0, "mpvpe": 120.0, "accel": 7.0}))
    table = ablations.run_ablations(options, seeds=(1, 2), on_done=lambda line: None)
    assert (
        table["full"]["mpjpe"] == [81.0, 101.0]
        and len(trained) == 2 * len(ablations.VARIANTS) + len(ablations.CHOICES) - 1
    )
    assert all(o.skip_lift and o.config.mesh.lifter_rate == 0 for o in trained)
    by_name = {o.out.name: o.config for o in trained}
    assert not by_name["without_HPO-1"].network.use_hpo and by_name["Euclidean-2"].network.curvature == "euclidean"
    assert by_name["Euclidean-2"].seed == 2
    assert "| full | 91.0 ± 10.0 | 55.0 ± 5.0 | 105.0 ± 15.0 | 6.0 ± 1.0 |" in ablations.format_ablations(table)
