"""What several operators need before they can run; each says what is missing."""

from __future__ import annotations

from ..figures import has_figure
from ..runtime import runtime


def has_idle_figure(operator: type, context) -> bool:
    """Return whether there is a figure and no job runs; `operator` gets the reason where not."""
    if runtime.is_running:
        operator.poll_message_set("A job is running: wait for it or cancel it")
        return False
    if not has_figure(context.scene):
        operator.poll_message_set("There is no figure in the scene: recover a motion first")
        return False
    return True


def may_change_figure(operator: type, context) -> bool:
    """Return whether there is a figure, no job runs and nothing is in edit mode; `operator` gets the reason where
    not."""
    if not has_idle_figure(operator, context):
        return False
    if context.mode not in {"OBJECT", "POSE"}:
        operator.poll_message_set("Leave edit mode first")
        return False
    return True
