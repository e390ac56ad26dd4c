"""Devices, cores and memory of this machine, and progress bars of libraries sent to the log."""

from __future__ import annotations

import io
import os
import platform
from contextlib import suppress
from functools import partialmethod
from pathlib import Path

from lcbench.errors import RequestError
from lcbench.system.log import LOGGER

# Between two lines of a library's progress bar in the log.
_BAR_SECONDS = 30.0


class _Log(io.TextIOBase):
    """A file whose lines go to the log, for libraries that draw progress bars."""

    def write(self, text: str) -> int:
        if line := text.strip():
            LOGGER.info("%s", line)
        return len(text)


def log_bars() -> None:
    """Send libraries' tqdm progress bars to the log: mteb's cannot be switched off."""
    from tqdm import tqdm

    keywords = getattr(vars(tqdm)["__init__"], "keywords", {})
    if not isinstance(keywords.get("file"), _Log):
        tqdm.__init__ = partialmethod(tqdm.__init__, file=_Log(), mininterval=_BAR_SECONDS)


def share_cores(scoring: int) -> None:
    """Limit the tokenizer's threads to the cores on which no process scores.

    On a GPU, texts are tokenised while others are encoded and yet others are scored. The number of
    threads is fixed when the library creates them.

    Args:
        scoring: number of processes that score.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(max(1, cores() - scoring)))


def device_of(asked: str) -> str:
    """Return the first device that a run uses.

    Raises:
        RequestError: torch does not find it here.
    """
    return devices_of(asked)[0]


def devices_of(asked: str) -> list[str]:
    """Return the devices that a run uses: every GPU unless one is named.

    Args:
        asked: `engine.device`: auto, cpu, cuda, mps, or another of torch's device names.

    Raises:
        RequestError: torch does not find it here.
    """
    import torch

    cuda = torch.cuda.is_available()
    every = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if cuda else []
    if asked == "auto":
        return every or ["cpu"]
    if asked == "cuda" and cuda:
        return every
    if asked.startswith("cuda") and not cuda:
        raise RequestError(
            f"engine.device={asked}: torch finds no CUDA device here; use "
            "engine.device=auto or engine.device=cpu."
        )
    if asked.startswith("mps") and not torch.backends.mps.is_available():
        raise RequestError("engine.device=mps: torch finds no MPS device here.")
    return [asked]


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name; empty if the system does not report it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def memory_gib() -> float:
    """Return the memory in GiB that this process may use: the machine's, container's or job's."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            sizes.append(int(Path("/sys/fs/cgroup", limit).read_text(encoding="ascii")))
    with suppress(KeyError, ValueError):
        # In MiB.
        sizes.append(int(os.environ["SLURM_MEM_PER_NODE"]) * 2**20)
    return min(sizes) / 2**30
