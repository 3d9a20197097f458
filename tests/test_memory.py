"""core.memory: the peak follows a large allocation, and freed memory goes back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
from core.memory import peak_memory_mb, release_memory
def resident():
    return next(int(l.split()[1]) * 1024 / 1e6 for l in open("/proc/self/status") if l.startswith("VmRSS"))
before = peak_memory_mb()
blocks = [bytearray(b"x" * 100_000) for _ in range(2000)]
keep = blocks[-1]
peak = peak_memory_mb()
del blocks
release_memory()
print(before, peak, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_and_release():
    words = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    before, peak, after = map(float, words.split())
    assert 190 < peak - before < 230, "200 MB were taken"
    assert after < before + 40, "and given back"
