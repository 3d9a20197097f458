"""The one place that finds core.protocol, so that every other module writes `from .wire import protocol`.

Inside the extension `addon` and `core` are subpackages of one package and the import is relative; in a source tree
whose root is on the path both are top-level.
"""

from __future__ import annotations

if "." in __package__:
    from ..core import protocol
else:
    from core import protocol

__all__ = ["protocol"]
