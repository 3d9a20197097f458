"""What every module of these tests needs once: the network, its crops and what is made of them."""

from __future__ import annotations

import pytest

from core.train.landmarks.features import CropBank
from tests.landmarks.landmark_support import the_frame, the_original, the_pictures, write_folder


@pytest.fixture(scope="module")
def original():
    return the_original()


@pytest.fixture(scope="module")
def frame():
    return the_frame()


@pytest.fixture(scope="module")
def pictures():
    return the_pictures()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="module")
def bank(folder, original):
    return CropBank(folder, "train", original)
