"""Compose a job: engine client, scene writer and session. What the operator and the batch run have in common."""

from __future__ import annotations

from pathlib import Path

import bpy

from .client import EngineClient
from .engine_env import check_python, package_root, read_requirements
from .scene.options import WriterOptions
from .scene.writer import SceneWriter
from .session import Session


def launch(
    scene: bpy.types.Scene,
    video: str,
    *,
    python: str,
    job_options: dict,
    writer_options: WriterOptions,
    log: Path,
) -> Session:
    """Start a job that writes into `scene` and return its session. Returns at once; the engine comes up meanwhile."""
    requirements = read_requirements()
    client = EngineClient(python, package_root(), log=log, check=lambda path: check_python(path, requirements))
    session = Session(client, SceneWriter(scene, writer_options))
    session.start(video, job_options)
    return session
