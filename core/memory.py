"""How much memory this process has used at most, and giving back what it no longer uses."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def peak_memory_mb() -> float:
    """Return the largest resident size so far in megabytes (10^6 bytes); 0 where the system does not tell."""
    if sys.platform == "win32":
        return _windows_peak_bytes() / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count what the parent process used before it started this one
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
        return round(int(line.split()[1]) * 1024 / 1e6, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def release_memory() -> None:
    """Give freed memory back to the system where the C library keeps it (glibc); elsewhere nothing is done.

    Large arrays of changing sizes leave holes in the heap, which would otherwise grow with the length of a clip.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


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
