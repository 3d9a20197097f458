"""Which device the engine computes on. torch is imported only when asked."""

from __future__ import annotations

from core.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> str:
    """Return a torch device name: `auto` takes cuda, then mps, then cpu. InputError if the asked one is absent."""
    import torch

    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise InputError(f"Unknown device {name!r}: use one of {', '.join(DEVICES)}")
    has = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": bool(getattr(torch.backends, "mps", None)) and torch.backends.mps.is_available(),
    }
    if kind == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if has[device])
    if not has[kind]:
        available = ", ".join(device for device, is_there in has.items() if is_there)
        raise InputError(f"Device {name!r} is not available here (available: {available}); use --device auto")
    if kind == "cuda" and ":" in name and not _is_index(name.split(":", 1)[1], torch.cuda.device_count()):
        raise InputError(f"There is no device {name!r}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return name


def describe_device(name: str) -> str:
    """Return a device as a person would call it, for example `cuda (NVIDIA L4)`."""
    import torch

    if name.startswith("cuda"):
        return f"{name} ({torch.cuda.get_device_name(name)})"
    return f"{name} ({torch.get_num_threads()} threads)" if name == "cpu" else name


def has_fast_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 faster than float32. Processors without AVX-512 or AMX for it emulate
    it, 50 times slower."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return device == "cpu" and bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))


def _is_index(text: str, count: int) -> bool:
    return text.isdigit() and int(text) < count
