"""People in video: detection, landmarks, tracking. `perceive` is the stage; the other modules are its parts."""

from core.perception.stage import perceive

__all__ = ["perceive"]
