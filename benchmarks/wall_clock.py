"""Wall-clock time of a benchmark's process, and of the accelerator where there is one."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds, once all that the accelerator was told to do is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()
