"""The exception tree of the engine. Messages say what happened, where, and what to do.

HyperMocapError
    InputError              the user's file or option is at fault
        VideoError          unreadable, empty or truncated video
        BodyFileError       a body model file of the wrong kind
        NoPersonError       nobody was found in the video
    OutputError             the result cannot be written (read-only folder, full disk)
    SetupError       the engine's own installation is broken (weights, device, version)
    Cancelled               the user asked to stop; not a failure
    (ProtocolError lives in core.protocol, which is standard library only)
"""

from __future__ import annotations


class HyperMocapError(Exception):
    """Base of all expected failures. `str(error)` is one line that can be shown to a user."""

    code = "error"


class InputError(HyperMocapError):
    """The user's file or option is at fault."""

    code = "input"


class VideoError(InputError):
    """The video cannot be read, is empty, or ends early."""

    code = "video"


class BodyFileError(InputError):
    """A body model file is not what was expected."""

    code = "body_file"


class NoPersonError(InputError):
    """Nobody was found in the video."""

    code = "no_person"


class OutputError(HyperMocapError):
    """The result cannot be written."""

    code = "output"


class SetupError(HyperMocapError):
    """The engine's own installation is broken."""

    code = "setup"


class Cancelled(HyperMocapError):
    """The user asked to stop."""

    code = "cancelled"
