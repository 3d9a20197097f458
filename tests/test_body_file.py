"""Reading body files: official SMPL in its several dresses, and the refusal of everything else."""

from __future__ import annotations

import os
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from core.body import DEFAULT_PATH, load_body
from core.body_file import read_body_file
from core.errors import BodyFileError
from core.skeleton import PRINCIPAL_COUNT
from tests.smpl_like import smpl_like

ARRAYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f")


class Ch:
    """What chumpy pickles: an object whose state holds the array as x."""

    def __init__(self, x):
        self.x = x


@pytest.fixture
def chumpy_module(monkeypatch):
    module = types.ModuleType("chumpy.ch")
    monkeypatch.setattr(Ch, "__module__", "chumpy.ch")
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)


@pytest.mark.parametrize("protocol", [2, 4])
def test_official_pickle_with_sparse_regressor_and_chumpy(tmp_path, chumpy_module, protocol):
    data = smpl_like(pose_correctives=True)
    stored = dict(data, J_regressor=scipy.sparse.csc_matrix(data["J_regressor"]), shapedirs=Ch(data["shapedirs"]))
    stored["kintree_table"] = data["kintree_table"].astype(np.uint32)  # root as 4294967295, like the original
    path = tmp_path / "basicmodel_f_lbs_10_207_0_v1.1.0.pkl"
    path.write_bytes(pickle.dumps(stored, protocol=protocol))
    found = read_body_file(path)
    for key in ARRAYS:
        array = found[key][..., :PRINCIPAL_COUNT] if key == "shapedirs" else found[key]
        np.testing.assert_allclose(array, data[key], atol=1e-9, err_msg=key)
    body = load_body(path)
    assert (body.vertex_count, body.gender, body.name) == (6890, "female", path.stem)
    assert body.posedirs is not None and body.quads.shape == (13776, 4) and (body.quads[:, 3] == -1).all()


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.coo_matrix, scipy.sparse.csc_array])
def test_every_sparse_kind(tmp_path, kind):
    data = smpl_like()
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps(dict(data, J_regressor=kind(data["J_regressor"])), protocol=2))
    np.testing.assert_allclose(read_body_file(path)["J_regressor"], data["J_regressor"], atol=1e-15)


def test_npz_also_with_a_sparse_object_inside(tmp_path):
    data = smpl_like(betas=300)
    np.savez(tmp_path / "SMPL_MALE.npz", **data)
    sparse = dict(data, J_regressor=np.array(scipy.sparse.csc_matrix(data["J_regressor"]), dtype=object))
    np.savez(tmp_path / "b.npz", **sparse)
    for name in ("SMPL_MALE.npz", "b.npz"):
        found = read_body_file(tmp_path / name)
        np.testing.assert_allclose(found["J_regressor"], data["J_regressor"], atol=1e-15)
        np.testing.assert_array_equal(found["shapedirs"][..., :10], data["shapedirs"][..., :10])
        assert not found["shapedirs"][..., 10:].any()  # its eleventh component lengthens nothing
    assert load_body(tmp_path / "SMPL_MALE.npz").gender == "male"


def test_few_shape_components_are_padded(tmp_path):
    np.savez(tmp_path / "b.npz", **smpl_like(betas=4))
    shapedirs = read_body_file(tmp_path / "b.npz")["shapedirs"]
    assert shapedirs.shape == (6890, 3, 16) and not shapedirs[..., 4:].any() and shapedirs[..., :4].any()


class _Evil:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [(os.system, ("touch {}",)), (os.makedirs, ("{}",)), (os.mkdir, ("{}",))])
@pytest.mark.parametrize("inside_npz", [False, True])
def test_a_pickle_that_runs_code_is_refused(tmp_path, call, inside_npz):
    witness = tmp_path / "witness"
    function, arguments = call
    evil = _Evil((function, tuple(a.format(witness) for a in arguments)))
    data = dict(smpl_like(), J_regressor=evil)
    if inside_npz:
        path = tmp_path / "evil.npz"
        np.savez(path, **dict(data, J_regressor=np.array(evil, dtype=object)))
    else:
        path = tmp_path / "evil.pkl"
        path.write_bytes(pickle.dumps(data))
    with pytest.raises(BodyFileError, match="evil.*refused: it asks for"):
        load_body(path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(evil))  # the same bytes do act when nothing guards
    assert witness.exists()


def _text(path):
    path.write_text("not a body at all\n")


def _empty(path):
    path.write_bytes(b"")


def _random_npz(path):
    with path.open("wb") as file:
        np.savez(file, poses=np.zeros((10, 72)), trans=np.zeros((10, 3)))


def _smplx(path):
    with path.open("wb") as file:
        np.savez(file, **smpl_like(joints=55))


def _list_pickle(path):
    path.write_bytes(pickle.dumps([1, 2, 3]))


def _cut_npz(path):
    path.write_bytes(DEFAULT_PATH.read_bytes()[:100_000])


def _cut_pickle(path):
    path.write_bytes(pickle.dumps(smpl_like())[:50_000])


def _flipped_npz(path):
    data = bytearray(DEFAULT_PATH.read_bytes())
    data[60_000:60_400] = bytes(400)
    path.write_bytes(bytes(data))


def _not_finite(path):
    data = smpl_like()
    data["v_template"][5, 1] = np.nan
    with path.open("wb") as file:
        np.savez(file, **data)


def _wrong_tree(path):
    data = smpl_like()
    data["kintree_table"][0, 5:7] = 0
    with path.open("wb") as file:
        np.savez(file, **data)


def _other_size(path):
    data = smpl_like()
    data["weights"] = data["weights"][:-1]
    with path.open("wb") as file:
        np.savez(file, **data)


def _bad_faces(path):
    with path.open("wb") as file:
        np.savez(file, **dict(smpl_like(), f=np.array([[0, 1, 6890]])))


def _other_topology(path):
    data = {k: (v[:500] if len(v) == 6890 else v) for k, v in smpl_like().items()}
    data["J_regressor"], data["f"] = data["J_regressor"][:, :500], data["f"] % 500
    with path.open("wb") as file:
        np.savez(file, **data)


@pytest.mark.parametrize(
    "write, words",
    [
        (_text, "not a body model"),
        (_empty, "not a body model"),
        (_random_npz, "no v_template, shapedirs, weights"),
        (_smplx, "SMPL-X body with 55 joints"),
        (_list_pickle, "holds a list"),
        (_cut_npz, "damaged"),
        (_cut_pickle, "cannot be read as a body model"),
        (_flipped_npz, "damaged"),
        (_not_finite, "not finite"),
        (_wrong_tree, "another order"),
        (_other_size, r"weights is \(6889, 24\)"),
        (_bad_faces, "faces do not fit"),
        (_other_topology, "500 vertices and no keypoint_regressor"),
    ],
)
def test_wrong_files_are_refused_in_one_line_that_says_what_was_expected(tmp_path, write, words):
    path = tmp_path / "thing.npz"
    write(path)
    with pytest.raises(BodyFileError, match=words) as caught:
        load_body(path)
    text = str(caught.value)
    assert "\n" not in text and "expected" in text and "thing" in text


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(BodyFileError, match="cannot be read"):
            load_body(path)
