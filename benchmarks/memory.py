"""Peak memory of a benchmark's process."""

from __future__ import annotations

from pathlib import Path


def peak_gib() -> float:
    """Peak memory of this process in GiB, on the accelerator where there is one."""
    import torch  # heavy, and not every benchmark has it

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return host_mib() / 2**10


def host_mib() -> float:
    """VmHWM and not ru_maxrss, which a child process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10
