"""`python -m core synth`: what it refuses before it works."""

from __future__ import annotations

from core.__main__ import main


def test_a_folder_for_the_bank_is_refused_and_nothing_is_written(tmp_path, capsys):
    """The bank goes to --bank; --out was once ignored, and the bank in use written over."""
    bank = tmp_path / "bank.npz"
    bank.write_bytes(b"kept")
    words = ["synth", "bank", "--mocap", str(tmp_path / "any.npz"), "--bank", str(bank), "--out", str(tmp_path)]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "--bank" in told and str(bank) in told and len(told.splitlines()) == 1
    assert bank.read_bytes() == b"kept"
