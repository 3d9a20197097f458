"""The exception tree of Blender's side. `str(error)` is one line for the user that says what to do.

AddonError
    EngineError             a job could not go on
        EngineMissingError  there is no usable engine Python; the text names the button that mends it
        EngineStartError    the engine did not start or did not prove itself in time
        EngineDiedError     the engine process ended in the middle of a job
    SetupError              the engine's environment could not be built
    JobStateError           an event that the job's state does not allow; nothing was changed
    BodyDataError           a body (message or file) that no figure can be built from
    ResultFileError         a result file that is missing or is not one
    ExportError             nothing to export, or the file cannot be written
    RefitError              bones that cannot be fitted to the shape of their figure; nothing was changed
(ProtocolError lives in core.protocol.)
"""

from __future__ import annotations


class AddonError(Exception):
    """Base of all expected failures on Blender's side."""


class EngineError(AddonError):
    """A job could not go on."""


class EngineMissingError(EngineError):
    """There is no usable engine Python."""


class EngineStartError(EngineError):
    """The engine did not start, or did not prove itself in time."""


class EngineDiedError(EngineError):
    """The engine process ended in the middle of a job."""


class SetupError(AddonError):
    """The engine's environment could not be built."""


class JobStateError(AddonError):
    """The job's state does not allow this event."""


class BodyDataError(AddonError):
    """A body (message or file) that no figure can be built from."""


class ResultFileError(AddonError):
    """A result file that is missing or is not one."""


class ExportError(AddonError):
    """Nothing to export, or the file cannot be written."""


class RefitError(AddonError):
    """Bones that cannot be fitted to the shape of their figure; nothing was changed."""
