"""The scene side's arrays without Blender: frames as they arrive, point cache files, skinning, correctives."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "blender"))
import scene_support as support  # noqa: E402

from addon.errors import BodyDataError  # noqa: E402
from addon.scene import correctives  # noqa: E402
from addon.scene.bodydata import BodyData, skin, skinning_transforms, strongest_influences  # noqa: E402
from addon.scene.frames import FrameStore  # noqa: E402
from addon.scene.pc2 import PointCacheFile, read_header  # noqa: E402

AXES = np.tile(np.eye(3), (24, 1, 1))
BETAS = np.linspace(-1.5, 1.5, 10)


@pytest.fixture(scope="module")
def body() -> dict:
    return support.synthetic_body()


@pytest.fixture(scope="module")
def data(body: dict) -> BodyData:
    return BodyData.from_message(support.body_message(body))


def stored(motion: dict, order: list) -> FrameStore:
    store = FrameStore()
    for rows in order:
        store.put(support.frames_message(0, motion, rows))
        store.convert(support.JOINTS, AXES)
    return store


@pytest.mark.parametrize(
    "order",
    [
        [slice(0, 40)],
        [slice(0, 16), slice(16, 40)],
        [slice(30, 40), slice(0, 10), slice(10, 30)],
        [[5, 3, 1], slice(0, 40, 2), slice(1, 40, 2), slice(10, 20)],
    ],
)
def test_any_order_of_arrival_gives_the_same_frames(order: list) -> None:
    motion = support.wild_motion(40)
    store = stored(motion, order)
    np.testing.assert_array_equal(store.frames, motion["frames"])
    np.testing.assert_array_equal(store.poses.reshape(40, 72), motion["poses"])
    np.testing.assert_array_equal(store.trans, motion["trans"])
    assert (np.sum(store.quaternions[1:] * store.quaternions[:-1], axis=-1) > 0).all()
    whole = stored(motion, [slice(0, 40)])
    sign = np.sign(np.sum(store.quaternions[:1] * whole.quaternions[:1], axis=-1, keepdims=True))
    np.testing.assert_allclose(store.quaternions * sign, whole.quaternions, atol=1e-6)


def test_revised_frames_replace_and_repeats_take_the_last() -> None:
    motion, better = support.wild_motion(20), support.wild_motion(20, seed=3)
    store = stored(motion, [slice(0, 20)])
    store.put(support.frames_message(0, better, [4, 5, 5, 6], revise=True))
    expected = motion["poses"].copy()
    expected[4:7] = better["poses"][4:7]
    np.testing.assert_array_equal(store.poses.reshape(20, 72), expected)
    first, last, _ = store.convert(support.JOINTS, AXES)
    assert (first, last) == (4, 6)


def test_empty_and_broken_frames_are_left_out() -> None:
    motion = support.wild_motion(6)
    motion["poses"][2, 0] = np.inf
    motion["times"][3] = np.nan
    motion["contacts"][4] = np.nan
    store = FrameStore()
    taken = store.put(support.frames_message(0, motion, slice(0, 6)))
    assert taken.tolist() == [0, 1, 4, 5] == store.frames.tolist()
    assert np.isfinite(store.contacts).all()
    assert store.put(support.frames_message(0, motion, [2])).tolist() == []
    assert store.put(support.frames_message(0, motion, slice(0, 0))).tolist() == []


def test_skinning_follows_the_formula(body: dict, data: BodyData) -> None:
    motion = support.wild_motion(8)
    rest, joints = data.rest_vertices(BETAS), data.rest_joints(BETAS)
    poses = motion["poses"].reshape(8, 24, 3)
    ours = skin(data, rest, poses, motion["trans"], joints)
    for i in range(8):
        expected = support.oracle_vertices(body, BETAS, motion["poses"][i], motion["trans"][i])
        np.testing.assert_allclose(ours[i], expected, atol=2e-6)


def test_rest_residual_inverts_the_skin(body: dict, data: BodyData) -> None:
    motion = support.wild_motion(3)
    offset = np.random.default_rng(0).normal(0, 0.02, body["v_template"].shape)
    moved = dict(body, v_template=body["v_template"] + offset)
    vertices = support.oracle_vertices(moved, BETAS, motion["poses"][2], motion["trans"][2])
    rotations, translations = skinning_transforms(
        motion["poses"].reshape(3, 24, 3), motion["trans"], data.rest_joints(BETAS)
    )
    found = correctives.rest_residual(
        data, data.rest_vertices(BETAS).astype(np.float32), vertices, rotations[2], translations[2]
    )
    np.testing.assert_allclose(found, offset, atol=5e-5)


def drain(pieces):
    """Do all pieces of a generator; what it returns."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


def test_principal_components_against_svd() -> None:
    samples = np.random.default_rng(0).normal(0, 0.01, (30, 90)).astype(np.float32) * np.geomspace(1, 0.1, 90)
    samples = samples.astype(np.float32)
    ours = drain(correctives.principal_components(samples, 30))
    expected = np.linalg.svd(samples.astype(np.float64), full_matrices=False)[2][:16]
    assert ours.shape == (16, 90)
    np.testing.assert_allclose(np.abs(np.sum(ours * expected, axis=1)), 1, atol=1e-3)
    np.testing.assert_allclose(ours @ ours.T, np.eye(16), atol=1e-10)


def test_point_cache_bytes(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    path = tmp_path / "ä b.pc2"
    with PointCacheFile(path, 5) as cache:
        for index in (2, 0, 1):
            cache.write(index, points[index])
        np.testing.assert_array_equal(cache.read(1), points[1])
    raw = path.read_bytes()
    assert struct.unpack("<12siiffi", raw[:32]) == (b"POINTCACHE2\0", 1, 5, 0.0, 1.0, 3)
    np.testing.assert_array_equal(np.frombuffer(raw[32:], "<f4").reshape(3, 5, 3), points)
    assert read_header(path) == (5, 3)


def test_point_cache_gaps_and_shift(tmp_path: Path) -> None:
    points = np.arange(45, dtype=np.float32).reshape(3, 5, 3)
    cache = PointCacheFile(tmp_path / "a.pc2", 5)
    cache.write(1, points[0])
    cache.write(4, points[2])
    assert cache.missing == [0, 2, 3]
    for index in cache.missing:
        cache.fill_gap(index)
    np.testing.assert_array_equal(cache.read(0), points[0])
    np.testing.assert_allclose(cache.read(2), points[0] + (points[2] - points[0]) / 3, rtol=1e-6)
    cache = cache.shifted(2)
    assert cache.sample_count == 7 and cache.missing == [0, 1]
    np.testing.assert_array_equal(cache.read(6), points[2])
    cache.write(0, points[1])
    cache.close()
    assert [p.name for p in tmp_path.iterdir()] == ["a.pc2"]
    assert read_header(tmp_path / "a.pc2") == (5, 7)


def test_point_cache_refuses_other_bodies_and_other_files(tmp_path: Path) -> None:
    with PointCacheFile(tmp_path / "a.pc2", 5) as cache, pytest.raises(BodyDataError, match="5"):
        cache.write(0, np.zeros((6, 3)))
    (tmp_path / "b.pc2").write_bytes(b"hello")
    with pytest.raises(BodyDataError, match="not a PC2"):
        read_header(tmp_path / "b.pc2")


def smpl_file(body: dict, path: Path, **changes) -> Path:
    """The body in SMPL's layout: dense weights, a regressor that gives its joints exactly."""
    count = len(body["v_template"])
    weights = np.zeros((count, 24))
    np.add.at(weights, (np.arange(count)[:, None], body["weight_joints"]), body["weight_values"])
    stacked = np.concatenate([body["v_template"], body["shapedirs"].reshape(count, -1)], axis=1).astype(np.float64)
    wanted = np.concatenate([body["joints"], body["joint_shapedirs"].reshape(24, -1)], axis=1)
    regressor = np.linalg.lstsq(stacked.T, wanted.T, rcond=None)[0].T
    arrays = {
        "v_template": body["v_template"],
        "shapedirs": body["shapedirs"],
        "J_regressor": regressor,
        "weights": weights,
        "quads": body["faces"],
        "name": np.array("boxes"),
        "gender": np.array("neutral"),
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_body_file_equals_body_message(body: dict, data: BodyData, tmp_path: Path) -> None:
    loaded = BodyData.from_file(str(smpl_file(body, tmp_path / "body.npz")))
    assert (loaded.name, loaded.gender) == ("boxes", "neutral")
    np.testing.assert_array_equal(loaded.faces, data.faces)
    np.testing.assert_allclose(loaded.rest_joints(BETAS), data.rest_joints(BETAS), atol=1e-5)
    dense = np.zeros((2, len(data.vertices), 24))
    for k, d in enumerate((loaded, data)):
        np.add.at(dense[k], (np.arange(len(d.vertices))[:, None], d.weight_joints), d.weight_values)
    np.testing.assert_allclose(dense[0], dense[1], atol=1e-6)


def test_body_file_errors(body: dict, tmp_path: Path) -> None:
    with pytest.raises(BodyDataError, match="No such body file"):
        BodyData.from_file(str(tmp_path / "none.npz"))
    with pytest.raises(BodyDataError, match="lacks weights"):
        BodyData.from_file(str(smpl_file(body, tmp_path / "a.npz", weights=None)))
    (tmp_path / "b.npz").write_bytes(b"PK nonsense")
    with pytest.raises(BodyDataError, match="not a readable"):
        BodyData.from_file(str(tmp_path / "b.npz"))


@pytest.mark.parametrize(
    "changes",
    [
        {"faces": np.array([[0, 1, 2, 99999]], dtype=np.int32)},
        {"weight_joints": np.full((288, 4), 24, dtype=np.int32)},
        {"joints": np.zeros((23, 3), dtype=np.float32)},
    ],
)
def test_impossible_bodies_are_refused(body: dict, changes: dict) -> None:
    with pytest.raises(BodyDataError):
        BodyData.from_message(support.body_message({**body, **changes}))


def test_strongest_influences() -> None:
    weights = np.zeros((1, 24))
    weights[0, [3, 7, 11, 15, 19]] = [0.4, 0.3, 0.15, 0.1, 0.05]
    joints, values = strongest_influences(weights)
    assert joints.tolist() == [[3, 7, 11, 15]]
    np.testing.assert_allclose(values, np.array([[0.4, 0.3, 0.15, 0.1]]) / 0.95, atol=1e-7)


def test_many_frames_are_converted_in_several_goes() -> None:
    motion = support.wild_motion(300)
    store = FrameStore()
    store.put(support.frames_message(0, motion, slice(0, 300)))
    spans = []
    while (found := store.convert(support.JOINTS, AXES)) is not None:
        spans.append(found[:2])
    assert len(spans) > 1 and spans[0][0] == 0 and spans[-1][1] == 299
    assert all(a[1] + 1 == b[0] for a, b in zip(spans, spans[1:]))
    pieces = stored(motion, [slice(start, start + 50) for start in range(0, 300, 50)])
    np.testing.assert_array_equal(store.quaternions, pieces.quaternions)
    np.testing.assert_array_equal(store.location, pieces.location)
