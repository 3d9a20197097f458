"""How much memory this process has used at most."""

from __future__ import annotations

import ctypes
import sys


def peak_memory_mb() -> float:
    """Return the largest resident size so far in megabytes (10^6 bytes); 0 where the system does not tell."""
    if sys.platform == "win32":
        return _windows_peak_bytes() / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def _windows_peak_bytes() -> int:
    class Counters(ctypes.Structure):
        _fields_ = [("cb", ctypes.c_uint32), ("faults", ctypes.c_uint32)] + [
            (name, ctypes.c_size_t) for name in ("peak", "size", "pp", "p", "pnp", "np", "pagefile", "peakpage")
        ]

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    process = ctypes.c_void_p(ctypes.windll.kernel32.GetCurrentProcess())
    is_known = ctypes.windll.psapi.GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb)
    return int(counters.peak) if is_known else 0
