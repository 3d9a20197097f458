"""core.cli.doctor and core.weights: what is missing or another version, and the command that mends it."""

from __future__ import annotations

import json
import sys

import pytest

from core.cli import doctor
from tests.cli_support import call


@pytest.mark.parametrize(
    ("version", "wanted", "is_right"),
    [
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.12.1", "==2.13.0", False),
        ("2.4.6", ">=2.0,<3", True),
        ("3.0.0", ">=2.0,<3", False),
        ("2.0", "==2.0.0", True),
        ("5.0.0.93", ">=4.10", True),
        ("4.9.1", ">=4.10", False),
        ("1.0", "", True),
    ],
)
def test_version_conditions(version, wanted, is_right):
    assert doctor.satisfies(version, wanted) is is_right


def test_doctor_names_what_is_missing_and_the_command(monkeypatch, tmp_path, capsys):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# a comment\nnumpy>=1.0\nno-such-package-anywhere==1.0\n")
    monkeypatch.setattr(doctor, "REQUIREMENTS", requirements)
    assert call("doctor") == 1
    out = capsys.readouterr().out
    assert "BAD no-such-package-anywhere" in out and "ok  numpy" in out
    assert f'To mend: "{sys.executable}" -m pip install -r "{requirements}"' in out
    assert call("doctor", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["is_fine"] and any(f["subject"] == "numpy" and f["is_fine"] for f in report["findings"])


def test_weights_are_compared_with_the_readme(tmp_path):
    import hashlib

    from core.weights import inspect_weights

    good, bad = b"good", b"bad"
    (tmp_path / "body_neutral.npz").write_bytes(good)
    (tmp_path / "blazepose.safetensors").write_bytes(bad)
    digest = hashlib.sha256(good).hexdigest()
    (tmp_path / "README.md").write_text(
        f"| file | sha256 |\n| `body_neutral.npz` | {digest} |\n| `blazepose.safetensors` | `{digest}` |\n"
        f"| `extra.npz` | {digest} |\n"
    )
    found = {f.name: f.problem for f in inspect_weights(tmp_path)}
    assert found["body_neutral.npz"] == ""
    assert found["blazepose.safetensors"] == "not the file that weights/README.md lists"
    assert found["pose_prior.npz"] == "missing" and found["extra.npz"] == "missing"
    remedies = {f.name: f.remedy for f in inspect_weights(tmp_path)}
    assert remedies["body_neutral.npz"] == "install Hyper Mocap again", "no source beside it"
