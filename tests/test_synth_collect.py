"""CMU takes in FBX files -> motion file: files made here of chosen rotations (scipy), which must come back."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from core.__main__ import main
from core.errors import InputError
from core.synth.collect import collect, write_collection
from core.synth.daz_fbx import read_daz_fbx
from core.synth.mocap import SourceSkeleton, read_mocap
from core.synth.trials import read_trials

TICK = 46186158000
SPINE = [("hip", -1, (0, 0, 0)), ("abdomen", 0, (0, 0.2, -0.01)), ("chest", 1, (0, 0.12, 0))]
SPINE += [("neck", 2, (0, 0.22, -0.02)), ("head", 3, (0, 0.07, 0.01))]
ARM = [("Collar", 2, (0.03, 0.19, -0.05)), ("Shldr", None, (0.09, -0.02, 0.01))]
ARM += [("ForeArm", None, (0.28, -0.02, 0)), ("Hand", None, (0.22, 0.01, 0.07))]
LEG = [("Buttock", 0, (0.09, 0.04, 0.01)), ("Thigh", None, (0, -0.02, -0.02))]
LEG += [("Shin", None, (0, -0.37, 0.01)), ("Foot", None, (-0.01, -0.45, -0.05))]
FOOT_TIP = (0.01, -0.04, 0.12)


def _skeleton() -> SourceSkeleton:
    table = list(SPINE)
    for limb in (ARM, LEG):
        for side, s in (("r", -1), ("l", 1)):
            for name, parent, (x, y, z) in limb:
                table.append((side + name, len(table) - 1 if parent is None else parent, (s * x, y, z)))
    names = tuple(row[0] for row in table)
    ends = np.zeros((len(table), 3))
    ends[[names.index("rFoot"), names.index("lFoot")]] = FOOT_TIP
    offsets = torch.tensor(np.array([row[2] for row in table], float))
    return SourceSkeleton(names, tuple(row[1] for row in table), offsets, torch.from_numpy(ends))


SKELETON = _skeleton()
J = len(SKELETON.joint_names)
REST = Rotation.random(J, random_state=3)
"""How the joint frames of the FBX file lie in the T-pose."""
BASE = Rotation.from_euler("x", -90, degrees=True)


def _motion(turns: dict[str, np.ndarray], keys: int) -> list[Rotation]:
    """Local rotations [keys] of each joint from rotation vectors [keys, 3] of some, degrees."""
    return [Rotation.from_rotvec(turns.get(name, np.zeros((keys, 3))), degrees=True) for name in SKELETON.joint_names]


def _swing(keys: int, *, seed: int = 0) -> list[Rotation]:
    """A few joints that swing smoothly, some with large angles."""
    rng, t = np.random.default_rng(seed), np.arange(keys)[:, None] / 24
    names = ("hip", "chest", "lShldr", "rForeArm", "rThigh", "lShin", "head")
    return _motion(
        {n: rng.uniform(20, 70, 3) * np.sin(t * rng.uniform(1, 3, 3) + rng.uniform(0, 6)) for n in names}, keys
    )


def _curve(axis: str, ticks: np.ndarray, values: np.ndarray) -> str:
    keep = slice(0, 1) if np.ptp(values) < 1e-9 else slice(None)
    keys = ",\n\t".join(f"{t},{v:.15f},L" for t, v in zip(ticks[keep], values[keep]))
    start = f'Channel: "{axis}" {{\nDefault: {values[0]:.15f}\nKeyVer: 4005\nKeyCount: {len(values[keep])}\n'
    return f"{start}Key: \n\t{keys}\nColor: 1,0,0\n}}\n"


def _fbx(local: list[Rotation], root_pos: np.ndarray, *, frames: np.ndarray | None = None, name: str = "9_9") -> str:
    """The file whose joints turn by `local` from the T-pose, the hip at `root_pos` [keys, 3], metres."""
    world: list[Rotation] = []
    for j, parent in enumerate(SKELETON.parents):
        world.append(local[j] if parent < 0 else world[parent] * local[j])
    ticks = (np.arange(len(root_pos)) if frames is None else frames) * (TICK // 24)
    models, bind, rest = "", "", SKELETON.rest_positions().numpy()
    for j, (joint, parent) in enumerate(zip(SKELETON.joint_names, SKELETON.parents)):
        own = world[j] * REST[j]
        angles = ((BASE if parent < 0 else world[parent] * REST[parent]).inv() * own).as_euler("xyz", degrees=True)
        places = BASE.inv().apply(root_pos) * 100 if parent < 0 else np.tile([[1.0, 2.0, 3.0]], (len(root_pos), 1))
        curves = ["".join(_curve(a, ticks, v[:, i]) for i, a in enumerate("XYZ")) for v in (places, angles)]
        models += (
            f'\t\tModel: "Model::{joint}" {{\nVersion: 1.1\nChannel: "Transform" {{\nChannel: "T" {{\n{curves[0]}}}\n'
        )
        models += f'Channel: "R" {{\n{curves[1]}}}\nChannel: "S" {{\n{_curve("X", ticks, np.ones(2))}}}\n}}\n}}\n'
        matrix = np.eye(4)
        matrix[:3, :3], matrix[3, :3] = REST[j].as_matrix().T, rest[j] * 100
        numbers = ",".join(f"{x:.15f}" for x in matrix.ravel())
        bind += f'PoseNode:  {{\n\t\t\tNode: "Model::{joint}"\n\t\t\tMatrix: {numbers}\n\t\t}}\n'
    lines = ["; FBX 6.1.0 project file", "Objects:  {", f'\tModel: "Model::{name}", "Limb" {{']
    for kind, values in (("Translation", "0.0,0.0,0.0"), ("Rotation", "-90.000002504478161,0.0,0.0")):
        lines.append(f'\t\t\tProperty: "Lcl {kind}", "Lcl {kind}", "A+",{values}')
    lines += [f'\t}}\n\tPose: "Pose::BIND_POSES", "BindPose" {{\n{bind}\t}}\n}}', "Connections:  {"]
    lines += [f'\tConnect: "OO", "Model::hip", "Model::{name}"', "}", "Takes:  {", models + "}"]
    return "\n".join(lines) + "\n"


def _walk(keys: int, *, speed: float = 1.2) -> np.ndarray:
    """Places [keys, 3] of a hip that goes straight on, metres."""
    return np.stack([0.1 + np.zeros(keys), 0.95 + np.zeros(keys), np.arange(keys) / 24 * speed], 1)


def _write_take(folder, name: str, local: list[Rotation], root_pos: np.ndarray, **options) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.fbx").write_text(_fbx(local, root_pos, name=name, **options))


@pytest.fixture
def mocap(tmp_path):
    """A motion file with one still clip, 01_01, on the skeleton."""
    arrays = {"joint_names": np.array(SKELETON.joint_names), "parents": np.array(SKELETON.parents, np.int32)}
    arrays |= {"rest_offsets": SKELETON.rest_offsets[None].numpy(), "end_offsets": SKELETON.end_offsets[None].numpy()}
    arrays |= {"quat": np.tile(np.float16([1, 0, 0, 0]), (40, J, 1)), "root_pos": np.zeros((40, 3), np.float32)}
    arrays |= {"clip_start": [0], "clip_len": [40], "clip_name": ["01_01#7"], "clip_subject": ["cmu_01"]}
    arrays |= {"clip_desc": ["stand"], "clip_skel": [0], "clip_floor_y": [0.0]}
    path = tmp_path / "mocap.npz"
    np.savez(path, groups=["cmu_daz"], fps=30, **{f"cmu_daz/{key}": value for key, value in arrays.items()})
    return path


def _rates(path, *rows: tuple[int, int, str, int]):
    lines = [f'{subject},{trial},"{text}",{rate},,' for subject, trial, text, rate in rows]
    path.write_text('"Subject","Trial #","Motion Description","framerate","Status",""\n' + "\n".join(lines))
    return path


def test_rotations_root_path_and_times_come_back():
    keys = 9
    local, root_pos = _swing(keys), np.random.default_rng(1).normal(size=(keys, 3))
    take = read_daz_fbx(_fbx(local, root_pos), SKELETON)
    assert np.allclose(take.times, np.arange(keys) / 24, atol=1e-12)
    assert np.allclose(take.rotmats, np.stack([turn.as_matrix() for turn in local], 1), atol=1e-6)
    assert np.allclose(take.root_pos, root_pos, atol=1e-6)


def test_between_keys_that_are_left_away_a_curve_is_straight():
    root_pos = _walk(5)
    root_pos[:, 2] = [0, 1, 2, 4, 8]
    for head, expected in ((0.0, [0, 1, 2, 8]), (10.0, [0, 1, 2, 5, 8])):  # keys of a moving head say when, too
        text = _fbx(_motion({"head": np.arange(5)[:, None] * [[head, 0, 0]]}, 5), root_pos)
        key = f",\n\t{3 * (TICK // 24)},-400.000000000000000,L"  # z of the world is -y of the file
        assert text.count(key) == 1
        count = text.rindex("KeyCount: 5", 0, text.index(key))
        text = text[:count] + text[count:].replace("KeyCount: 5", "KeyCount: 4", 1).replace(key, "")
        assert np.allclose(read_daz_fbx(text, SKELETON).root_pos[:, 2], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: "version https://git-lfs.github.com/spec/v1\n", "not an ASCII FBX"),
        (lambda text: text[: text.index("Takes:")], "not an ASCII FBX"),
        (lambda text: text[: int(0.7 * len(text))], "keys instead of|lacks|missing"),
        (lambda text: text.replace("Model::lShin", "Model::lKnee"), "lacks the bind pose of lShin"),
        (lambda text: text.replace('\t\tModel: "Model::lShin"', '\t\tModel: "Model::lKnee"'), "curve lShin"),
        (lambda text: text.replace('Connect: "OO", "Model::hip"', 'Connect: "OO", "Model::leg"'), "hip hangs on"),
        (lambda text: text.replace("KeyCount: 30", "KeyCount: 31", 1), "30 keys instead of 31"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(damage, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        read_daz_fbx(damage(_fbx(_swing(30), _walk(30))), SKELETON, source="7_1.fbx")
    assert str(caught.value).startswith("7_1.fbx") and "\n" not in str(caught.value)


def test_other_bones_are_refused():
    longer = SKELETON.rest_offsets.clone()
    longer[SKELETON.index("lShin"), 1] -= 0.01
    other = SourceSkeleton(SKELETON.joint_names, SKELETON.parents, longer, SKELETON.end_offsets)
    with pytest.raises(InputError, match=r"lShin|lFoot"):
        read_daz_fbx(_fbx(_swing(3), _walk(3)), other)


def _turning(keys: int, degrees_a_second: float) -> list[Rotation]:
    """The hip turns about the vertical and the left upper arm about a slant axis, both steadily, far past 180."""
    t = np.arange(keys)[:, None] / 24 * degrees_a_second
    return _motion({"hip": t * [0, 1, 0], "lShldr": t * [0.6, 0, 0.8]}, keys)


@pytest.mark.parametrize("rate", [120, 60])
def test_a_steady_turn_keeps_its_speed(tmp_path, mocap, rate):
    keys, T_POSE = 62, 1  # 60 intervals after the T-pose: 2.5 s as played, 5 s where captured at 60
    _write_take(tmp_path / "in", "20_03", _turning(keys, 120.0), _walk(keys))
    trials = read_trials(_rates(tmp_path / "rates.csv", (20, 3, "turn, steadily", rate)))
    collection = collect([tmp_path / "in"], [mocap], trials=trials)
    write_collection(tmp_path / "out.npz", collection)
    (clip,) = read_mocap(tmp_path / "out.npz")
    slower = 120 / rate
    assert len(clip.rotmats) == 75 * slower + 1 and clip.name == "20_03" and clip.subject == "cmu_20"
    assert clip.description == "turn, steadily" and clip.group == "cmu_daz"
    played = T_POSE / 24 + np.arange(len(clip.rotmats)) / 30 / slower
    for joint, axis in (("hip", [0, 1, 0]), ("lShldr", [0.6, 0, 0.8])):
        expected = Rotation.from_rotvec(120.0 * played[:, None] * [axis], degrees=True)
        found = Rotation.from_matrix(clip.rotmats[:, SKELETON.index(joint)].numpy())
        assert np.rad2deg((expected.inv() * found).magnitude()).max() < 0.06  # float16 of the file
    assert np.allclose(clip.root_pos, np.stack([0.1 + 0 * played, 0.95 + 0 * played, 1.2 * played], 1), atol=1e-6)
    sole = SKELETON.rest_positions()[SKELETON.index("lFoot")][1] + FOOT_TIP[1]
    assert clip.floor == pytest.approx(0.95 + float(sole), abs=1e-3)
    with np.load(tmp_path / "out.npz") as archive:
        assert archive["cmu_daz/clip_orig_fps"] == [24 / slower] and archive["cmu_daz/quat"].min(1)[..., 0].min() >= 0
        assert archive["cmu_daz/clip_source"] == ["in/20_03.fbx"] and archive["cmu_daz/quat"].dtype == np.float16


def test_an_unlisted_trial_has_its_subjects_rate(tmp_path, mocap):
    for number, seed in (("20_03", 1), ("21_01", 2)):
        _write_take(tmp_path / "in", number, _swing(62, seed=seed), _walk(62))
    trials = read_trials(_rates(tmp_path / "rates.csv", (20, 1, "", 60), (20, 2, "", 60), (20, 4, "", 120)))
    clips = collect([tmp_path / "in"], [mocap], trials=trials).clips
    assert [(clip.name, clip.fps) for clip in clips] == [("20_03", 12), ("21_01", 24)]


def test_what_is_left_out_and_why(tmp_path, mocap, caplog):
    """Numbers tell what is held out or known; motion tells copies, those of held-out takes too."""
    folder, walk = tmp_path / "in", _walk(40)
    names = {"20_01": 1, "20_02": 2, "19_05": 1, "02_01": 3, "21_01": 3, "49_02": 4, "93_04": 5, "103_04": 5}
    names |= {"22_01": 5, "01_01": 6, "23_01": 6}
    for name, seed in names.items():
        _write_take(folder / name[:2], name, _swing(40, seed=seed), walk)
    _write_take(tmp_path / "more", "20_02", _swing(40, seed=7), walk)
    _write_take(folder, "24_01", _swing(8, seed=8), walk[:8])
    _write_take(folder, "24_03", _swing(1), walk[:1])  # the T-pose alone
    _write_take(folder, "24_02", _motion({}, 40), walk[:1] + 0.002 * np.sin(np.arange(40))[:, None])
    _write_take(folder, "25_01", _swing(50, seed=9), _walk(50), frames=np.delete(np.arange(56), range(20, 26)))
    (folder / "26_01.fbx").write_text("Kaydara FBX Binary")
    (folder / "readme.fbx").write_text("no take")
    trials = read_trials(_rates(tmp_path / "rates.csv", (20, 1, "swing", 120)))
    with caplog.at_level(logging.INFO, logger="core.synth.collect"):
        collection = collect([folder, tmp_path / "more"], [mocap], trials=trials)
    assert [clip.name for clip in collection.clips] == ["20_01", "20_02"]  # 20 is listed, so 19_05 is the copy
    assert {reason: sorted(found) for reason, found in collection.left_out.items()} == {
        "of held-out subjects": ["02_01", "103_04", "49_02", "93_04"],
        "already in the motion file": ["01_01"],
        "copies under another number": ["19_05", "21_01", "22_01", "23_01"],
        "second file of a trial": ["20_02"],
        "too short or still": ["24_01", "24_02", "24_03"],
        "uneven key times": ["25_01"],
        "unreadable": ["26_01"],
    }
    assert (
        "25_01 left out: uneven key times" in caplog.text and "21_01 left out: copies under another number (as 02_01)"
    )
    expected = _swing(40, seed=2)[SKELETON.index("head")].as_matrix()[1]
    first = collection.clips[1].piece.quats[0, SKELETON.index("head")].numpy()
    assert np.allclose(Rotation.from_quat(first, scalar_first=True).as_matrix(), expected, atol=1e-6)


def test_a_take_of_the_motion_file_is_known_under_another_number(tmp_path, mocap):
    """The file's clip begins a few keys later than the take, as another conversion's may."""
    local, walk = _swing(62, seed=1), _walk(62)
    _write_take(tmp_path / "in", "20_01", [turn[2:] for turn in local], walk[2:])
    write_collection(tmp_path / "first.npz", collect([tmp_path / "in"], [mocap]))
    _write_take(tmp_path / "again", "31_05", local, walk)
    _write_take(tmp_path / "again", "31_06", _swing(62, seed=2), walk)
    collection = collect([tmp_path / "again"], [tmp_path / "first.npz"])
    assert [clip.name for clip in collection.clips] == ["31_06"]
    assert collection.left_out == {"copies under another number": ["31_05"]}


def test_a_take_is_cut_where_it_jumps(tmp_path, mocap):
    keys, JUMP = 121, 70
    walk = _walk(keys)
    walk[JUMP:, 0] += 2.0
    _write_take(tmp_path / "in", "20_01", _swing(keys), walk)
    pieces = [clip.piece for clip in collect([tmp_path / "in"], [mocap]).clips]
    names = [clip.name for clip in collect([tmp_path / "in"], [mocap]).clips]
    assert names == ["20_01#0", f"20_01#{pieces[1].start}"] and len(pieces) == 2
    for piece, x in zip(pieces, (0.1, 2.1)):
        assert np.allclose(piece.root_pos[:, 0], x, atol=1e-9)
        frame = piece.start + np.arange(len(piece.quats))
        assert np.allclose(piece.root_pos[:, 2], 1.2 * (1 / 24 + frame / 30), atol=1e-9)
    # the jump is at (70 - 1) / 24 s, 86.25 frames: at most four frames on each side are lost
    assert 81 <= len(pieces[0].quats) <= 85 and 88 <= pieces[1].start <= 91
    assert pieces[1].start + len(pieces[1].quats) == 149  # (120 - 1) / 24 * 30, and the frame at 0


def test_a_take_is_cut_where_only_a_limb_jumps(tmp_path, mocap):
    raised = np.where(np.arange(121)[:, None] < 70, 80.0, -80.0) * [[0, 0, 1]]
    _write_take(tmp_path / "in", "20_01", _motion({"lShldr": raised}, 121), _walk(121))
    clips = collect([tmp_path / "in"], [mocap]).clips
    assert len(clips) == 2 and clips[0].name == "20_01#0" and 88 <= clips[1].piece.start <= 91


def test_pieces_beside_a_jump_last_a_second_and_a_half(tmp_path, mocap):
    walk = _walk(121)
    walk[35:, 0] += 2.0  # 1.4 s after the T-pose
    _write_take(tmp_path / "in", "20_01", _swing(121), walk)
    clips = collect([tmp_path / "in"], [mocap]).clips
    assert [clip.piece.start > 40 for clip in clips] == [True] and clips[0].name == f"20_01#{clips[0].piece.start}"


def test_the_command_writes_a_file_and_says_what_it_left_out(tmp_path, mocap, capsys):
    _write_take(tmp_path / "in", "20_01", _swing(74), _walk(74))
    _write_take(tmp_path / "in", "05_01", _swing(74, seed=1), _walk(74))
    rates, out = _rates(tmp_path / "rates.csv", (20, 1, "swing", 60)), tmp_path / "new" / "out.npz"
    words = ["synth", "collect", "--fbx", str(tmp_path / "in"), "--mocap", str(mocap)]
    assert main([*words, "--rates", str(rates), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "1 clips of 1 takes, 0.1 minutes" in told and "1 of held-out subjects" in told and str(out) in told
    assert len(next(read_mocap(out)).rotmats) == 181  # 72 intervals of a twelfth
    for bad in (
        [],
        ["--out", str(tmp_path / "a.txt")],
        ["--out", str(tmp_path)],
        ["--out", str(mocap)],
        ["--rates", str(mocap), "--out", str(out)],
    ):
        assert main([*words, *bad]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert next(read_mocap(mocap)).name == "01_01#7"


def test_nothing_to_read_and_nothing_to_write_are_refused(tmp_path, mocap):
    with pytest.raises(InputError, match="no folder"):
        collect([tmp_path / "none"], [mocap])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="01_02.fbx"):
        collect([tmp_path / "empty"], [mocap])
    _write_take(tmp_path / "in", "02_01", _swing(40), _walk(40))
    with pytest.raises(InputError, match="everything was left out"):
        write_collection(tmp_path / "out.npz", collect([tmp_path / "in"], [mocap]))
    assert not (tmp_path / "out.npz").exists()
