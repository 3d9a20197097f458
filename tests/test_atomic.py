"""core.atomic: a file appears whole or not at all, and so do those of the writers that use it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.atomic import AtomicFile
from core.models import checkpoint
from core.synth import format as shards
from core.synth import motion


def test_it_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"before")
    with AtomicFile(str(path)) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there_and_no_trace(tmp_path, error):
    path = tmp_path / ("long" * 60)
    path.write_bytes(b"before")
    with pytest.raises(error), AtomicFile(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def _write_network(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save", _fail)
    checkpoint.write_file(path, {"a": torch.zeros(3)}, {})


def _write_shard(path, monkeypatch):
    monkeypatch.setattr(shards.np, "savez", _fail)
    shards.save_arrays(path, 1, {"a": np.zeros(3)})


def _write_motion(path, monkeypatch):
    monkeypatch.setattr(motion.np, "savez_compressed", _fail)
    quats = np.tile(np.float32([1, 0, 0, 0]), (2, 24, 1))
    clip = (np.zeros(1, np.int64), np.full(1, 2), *(("a",),) * 3, ("train",))
    motion.write_bank(path, motion.MotionBank(quats, np.zeros((2, 3), np.float32), *clip, leg_length=0.8))


def _fail(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("write", [_write_network, _write_shard, _write_motion])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, write):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="No space"):
        write(path, monkeypatch)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
