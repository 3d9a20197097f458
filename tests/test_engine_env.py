"""The engine's environment: every way it can be missing has its own sentence; a build works, stops and goes on."""

from __future__ import annotations

import re
import sys
import time
import zipfile
from pathlib import Path

import pytest

from addon.engine_build import BuildOptions, EngineBuild
from addon.engine_env import (
    available_methods,
    check_python,
    environment_python,
    find_python,
    is_built,
    package_name,
    probe,
    read_requirements,
    stamp_path,
)
from addon.errors import EngineMissingError
from tests.fake_engine import fake_python

REQUIREMENTS = ["torch==2.13.0", "numpy>=2.0,<3", "opencv-python-headless>=4.10"]


def make_wheel(folder: Path, name: str, version: str = "1.0") -> None:
    """Write the smallest wheel that pip installs: one module, metadata, record."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def build(folder: Path, requirements: list[str], **options) -> EngineBuild:
    options.setdefault("options", BuildOptions(wheel_folder=str(folder / "wheels")))
    return EngineBuild(folder / "engine", requirements, log=folder / "build.log", **options)


def test_shipped_requirements_are_pinned_where_it_matters() -> None:
    names = [package_name(r) for r in read_requirements()]
    assert names == ["torch", "numpy", "opencv-python-headless", "safetensors"]
    assert package_name("a[b]>=1") == "a" and package_name("c ; python_version<'4'") == "c"


def test_only_methods_whose_weights_are_there_are_offered(tmp_path: Path) -> None:
    assert [item[0] for item in available_methods(tmp_path)] == ["fit"]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "hyperbolic.safetensors").touch()
    assert [(item[0], item[3]) for item in available_methods(tmp_path)] == [("fit", 0), ("hyperbolic", 1)]


def test_the_engine_knows_every_method_that_is_offered() -> None:
    from core.recover import METHODS

    assert {item[0] for item in available_methods()} <= set(METHODS)


def test_a_usable_python_is_accepted(tmp_path: Path) -> None:
    found = check_python(fake_python(tmp_path), REQUIREMENTS)
    assert found.version == (3, 11, 7) and found.missing == ()


def test_the_probe_asks_the_python_itself() -> None:
    found = probe(sys.executable, ["json", "nowhere_to_be_found>=1"])
    assert found.version == tuple(sys.version_info[:3])
    assert found.missing == ("nowhere_to_be_found",)


def test_too_old(tmp_path: Path) -> None:
    with pytest.raises(EngineMissingError, match=r"is version 3\.10\.2, 3\.11 or newer is needed.*Build Engine"):
        check_python(fake_python(tmp_path, probe_version=(3, 10, 2)), REQUIREMENTS)


def test_packages_missing_are_named_as_pip_knows_them(tmp_path: Path) -> None:
    python = fake_python(tmp_path, probe_missing=("torch", "cv2"))
    with pytest.raises(EngineMissingError, match=r"lacks torch, opencv-python-headless: press Build Engine"):
        check_python(python, REQUIREMENTS)


def test_something_that_is_no_python(tmp_path: Path) -> None:
    script = tmp_path / "no_python"
    script.write_text("#!/bin/sh\necho 'unknown option -c' >&2\nexit 9\n")
    with pytest.raises(EngineMissingError, match="Permission denied.*choose another"):
        check_python(str(script), REQUIREMENTS)
    script.chmod(0o755)
    with pytest.raises(EngineMissingError, match="unknown option -c.*choose another"):
        check_python(str(script), REQUIREMENTS)


def test_every_stage_of_the_folder_has_its_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    with pytest.raises(EngineMissingError, match="does not exist: correct it"):
        find_python(str(tmp_path / "nothing"), folder, REQUIREMENTS)
    with pytest.raises(EngineMissingError, match="not built yet"):
        find_python("", folder, REQUIREMENTS)
    python = environment_python(folder)
    python.parent.mkdir(parents=True)
    python.touch()
    with pytest.raises(EngineMissingError, match="only half built"):
        find_python("", folder, REQUIREMENTS)
    stamp_path(folder).write_text("torch==1.0")
    with pytest.raises(EngineMissingError, match="another version"):
        find_python("", folder, REQUIREMENTS)
    stamp_path(folder).write_text("\n".join(REQUIREMENTS))
    assert find_python("", folder, REQUIREMENTS) == str(python)
    assert find_python(sys.executable, folder, REQUIREMENTS) == sys.executable


def test_a_real_build_stops_goes_on_and_is_found(tmp_path: Path) -> None:
    """Real venv, real pip, two tiny wheels; the second appears only after the first attempt failed."""
    requirements = ["hm_first==1.0", "hm_second"]
    make_wheel(tmp_path / "wheels", "hm_first")
    failed = build(tmp_path, requirements)
    failed.start()
    failed.join(120)
    assert failed.is_over and "Installing hm_second failed" in failed.error
    assert not is_built(tmp_path / "engine", requirements)
    with pytest.raises(EngineMissingError, match="half built"):
        find_python("", tmp_path / "engine", requirements)

    make_wheel(tmp_path / "wheels", "hm_second")
    again = build(tmp_path, requirements)
    again.start()
    again.join(120)
    assert again.error == "" and again.fraction == pytest.approx(1.0) and again.step == "Ready"
    assert "Requirement already satisfied: hm_first" in (tmp_path / "build.log").read_text()
    python = find_python("", tmp_path / "engine", requirements)
    assert probe(python, requirements).missing == ()
    assert not is_built(tmp_path / "engine", [*requirements, "third"])


def test_cancel_ends_the_build_and_its_children_at_once(tmp_path: Path) -> None:
    slow = tmp_path / "slow_python"
    slow.write_text("#!/bin/sh\necho making\nsleep 60 & sleep 60\n")
    slow.chmod(0o755)
    task = build(tmp_path, REQUIREMENTS, base_python=str(slow))
    task.start()
    deadline = time.monotonic() + 5
    while task.line != "making":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started = time.monotonic()
    task.cancel()
    task.join(5)
    assert time.monotonic() - started < 1.0
    assert task.is_over and task.is_cancelled and task.error == ""


@pytest.mark.parametrize(
    "said, expected",
    [
        ("ensurepip is not available", "comes without ensurepip: install the system's python3-venv package"),
        ("No space left on device", r"cannot make environments \(No space left on device\)"),
    ],
)
def test_a_base_that_cannot_make_environments(tmp_path: Path, said: str, expected: str) -> None:
    script = tmp_path / "no_venv"
    script.write_text(f"#!/bin/sh\necho '{said}'\nexit 1\n")
    script.chmod(0o755)
    task = build(tmp_path, REQUIREMENTS, base_python=str(script))
    task.start()
    task.join(10)
    assert task.is_over and re.search(expected, task.error)


def test_pips_own_error_is_quoted(tmp_path: Path) -> None:
    script = tmp_path / "pip"
    script.write_text("#!/bin/sh\necho 'ERROR: No matching distribution for x'\necho '[notice] new pip'\nexit 1\n")
    script.chmod(0o755)
    task = build(tmp_path, REQUIREMENTS)
    with (tmp_path / "log").open("w") as log:
        assert task._call([str(script)], log, 0.0, 0.0) == 1
    assert task._reason("Installing x failed").startswith("Installing x failed (No matching distribution for x).")


def test_bytes_of_a_download_move_the_bar(tmp_path: Path) -> None:
    """torch weighs 12 of 16; half of its download is 0.9 / 2 of that share."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'Progress 50000000 of 100000000'\nexit 0\n")
    script.chmod(0o755)
    task = build(tmp_path, REQUIREMENTS)
    with (tmp_path / "log").open("w") as log:
        task._call([str(script)], log, 0.0, 12 / 16)
    assert task.fraction == pytest.approx(0.9 * 0.5 * 12 / 16)
    assert task.line == "50 of 100 MB"


def test_where_packages_come_from(tmp_path: Path) -> None:
    online = build(tmp_path, REQUIREMENTS, options=BuildOptions(torch_index_url="index://cpu"))
    assert "index://cpu" in online._pip_command("p", "torch==2.13.0", True)
    assert "index://cpu" not in online._pip_command("p", "numpy", True)
    offline = build(tmp_path, REQUIREMENTS)._pip_command("p", "torch==2.13.0", False)
    assert "--no-index" in offline and "--progress-bar=raw" not in offline
