"""The checks of `lcbench doctor`: versions, devices, folders, network, each with a remedy.

torch is imported only on request: without it, its build and the GPUs that the driver lists tell
whether they fit together.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lcbench.errors import RequestError
from lcbench.system.files import cache_folder
from lcbench.system.hardware import cores, cpu_name, memory_gib
from lcbench.system.plugins import KINDS, plugins
from lcbench.system.programs import call
from lcbench.system.versions import git_commit, versions
from lcbench.system.words import size

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.settings.doctor import DoctorSettings

State = Literal["ok", "note", "warning", "missing"]
"""As needed; absent and not needed; a possible problem; something essential is missing."""

# The least free disk for results and stored embeddings, below which a warning is due.
_LEAST_FREE = 5 * 2**30
# MiniLM and the docs suite need 1.5 GiB.
_LEAST_MEMORY_GIB = 2.0
# A cache of many files takes long to add up; then the sum so far is given.
_COUNTING_SECONDS = 1.0
_COMMAND_SECONDS = 5.0
# Packages that lcbench does without, and what they are for.
_OPTIONAL = {
    "hydra-submitit-launcher": "Hydra's launcher for Slurm (launch=slurm does without)",
    "optuna": "lcbench tune method=search",
    "trackio": "track=trackio",
    "wandb": "track=wandb",
    "mlflow": "track=mlflow",
}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        topic: group of checks: `versions`, `devices` …
        name: name of the package, device, folder … that is checked.
        state: see `State`.
        found: what is there.
        remedy: how to get what is missing; empty if nothing is.
    """

    topic: str
    name: str
    state: State
    found: str
    remedy: str = ""


def examine(settings: DoctorSettings) -> tuple[Check, ...]:
    """Return all checks, in the order in which they are shown."""
    probe = None
    if not settings.offline and not _is_offline():
        from lcbench.hub.cache import Probe

        # It is answered, or not, while the other checks are made.
        probe = Probe()
    checks = [
        *_versions(),
        *_devices(asks_torch=settings.torch),
        *_folders(settings.results_dir),
    ]
    network = _network(None if probe is None else probe.answers())
    return (*checks, network, *_optional(), *_plugins(), _slurm())


def doctor(
    results_dir: str | os.PathLike[str] = "results/runs",
    *,
    offline: bool | None = None,
    torch: bool | None = None,
) -> pd.DataFrame:
    """Return what lcbench runs on: versions, devices, folders, network, and what is missing.

    The same as `python -m lcbench doctor`.

    Args:
        results_dir: folder of results, which is checked to be writable.
        offline: whether not to ask if the hub responds.
        torch: whether to import torch and ask it for its devices.

    Returns:
        A row per check: topic, name, state (`ok`; `note`: absent and not needed; `warning`;
        `missing`: essential), found, remedy.

    Raises:
        RequestError: an argument is invalid.

    Examples:
        >>> lcbench.doctor().query("state == 'missing'")
    """
    import pandas as pd

    from lcbench.api.compose import composed
    from lcbench.api.keywords import words_of
    from lcbench.settings.doctor import read_doctor

    own = {"results_dir": results_dir, "offline": offline, "torch": torch}
    with composed("doctor", words_of("doctor", own)) as config:
        checks = examine(read_doctor(config))
    return pd.DataFrame(map(asdict, checks), columns=[field.name for field in fields(Check)])


def is_missing(checks: Sequence[Check]) -> bool:
    """Return whether something essential is missing."""
    return any(check.state == "missing" for check in checks)


def _versions() -> Iterator[Check]:
    for name, found in versions().items():
        if name == "lcbench" and (commit := git_commit()):
            found = f"{found} ({commit})"
        if found != "not installed":
            yield Check("versions", name, "ok", found)
    yield from _unmet()


def _unmet() -> Iterator[Check]:
    """Yield a check for each package that lcbench needs and that does not fit or is missing."""
    from packaging.requirements import Requirement

    try:
        needed = distribution("lcbench").requires or ()
    except PackageNotFoundError:
        yield Check(
            "versions", "lcbench", "warning", "not installed, only imported", "pip install ."
        )
        return
    for text in needed:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Check("versions", requirement.name, "missing", "not installed", remedy)
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            found = f"{installed}; lcbench needs {requirement.specifier}"
            yield Check("versions", requirement.name, "missing", found, remedy)


def _devices(*, asks_torch: bool) -> Iterator[Check]:
    name = cpu_name() or platform.machine()
    yield Check("devices", "cpu", "ok", f"{name}, {cores()} cores for this process")
    memory = memory_gib()
    yield Check(
        "devices",
        "memory",
        "ok" if memory >= _LEAST_MEMORY_GIB else "warning",
        f"{memory:.1f} GiB",
        "" if memory >= _LEAST_MEMORY_GIB else "models may not fit: use a machine with more",
    )
    try:
        build = version("torch")
    except PackageNotFoundError:
        return
    gpus = _lines(
        ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    )
    for number, gpu in enumerate(gpus):
        state: State = "warning" if build.endswith("+cpu") else "ok"
        remedy = "" if state == "ok" else "torch is built for CPUs: install one for CUDA"
        yield Check("devices", f"gpu {number}", state, f"{gpu} (driver)", remedy)
    if not gpus:
        yield Check("devices", "gpu", "note", "no NVIDIA GPU")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        yield Check("devices", "mps", "ok", "engine.device=mps may be used")
    if asks_torch:
        yield _torch(bool(gpus))


def _torch(has_gpu: bool) -> Check:
    import torch

    from lcbench.system.hardware import devices_of

    found = f"{', '.join(devices_of('auto'))}; {torch.get_num_threads()} threads on CPUs"
    if torch.backends.mps.is_available():
        found += "; mps"
    if has_gpu and not torch.cuda.is_available():
        remedy = f"torch {torch.__version__} finds no CUDA device: update the driver, or torch"
        return Check("devices", "torch", "missing", found, remedy)
    return Check("devices", "torch", "ok", found)


def _lines(command: Sequence[str]) -> list[str]:
    """Return the lines that a program prints; none if it is not installed or fails."""
    try:
        shown = call(command, timeout=_COMMAND_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [] if shown.returncode else shown.stdout.splitlines()
    return [line.strip() for line in lines if line.strip()]


def _folders(results_dir: Path) -> Iterator[Check]:
    from huggingface_hub import constants

    datasets = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets")
    yield _folder("results", results_dir, "results_dir=PATH", essential=True)
    yield _folder("lcbench's cache", cache_folder(), "LCBENCH_CACHE=PATH", essential=True)
    yield _folder("models and data", Path(constants.HF_HUB_CACHE), "HF_HUB_CACHE=PATH")
    yield _folder("datasets", Path(datasets), "HF_DATASETS_CACHE=PATH")


def _folder(name: str, folder: Path, key: str, *, essential: bool = False) -> Check:
    """Return whether a folder can be written, or made, and its size."""
    folder = folder.expanduser().absolute()
    # Where the folder above may not be entered, `Path.exists` raises.
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))  # noqa: PTH110
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        state: State = "missing" if essential else "warning"
        return Check("folders", name, state, f"{folder} cannot be written", f"choose one: {key}")
    free = shutil.disk_usage(there).free
    used = size_of(folder) if folder == there else "not made yet"
    found = f"{folder} ({used}, {size(free)} free)"
    if free < _LEAST_FREE:
        return Check("folders", name, "warning", found, f"little room: {key} on another disk")
    return Check("folders", name, "ok", found)


def size_of(folder: Path, seconds: float = _COUNTING_SECONDS) -> str:
    """Return the size of the files below a folder; that of a part if it takes too long to add up.

    Files of the hub's cache are linked several times, and counted once.
    """
    deadline = time.monotonic() + seconds
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118
            try:
                status = os.lstat(path)
            except OSError:
                continue
            total += status.st_size
        if time.monotonic() > deadline:
            return f"more than {size(total)}"
    return size(total)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _network(answers: bool | None) -> Check:
    from huggingface_hub import constants

    if answers is None:
        return Check("network", "hub", "note", "not asked (offline)")
    if answers:
        return Check("network", "hub", "ok", f"{constants.ENDPOINT} responds")
    return Check(
        "network",
        "hub",
        "warning",
        f"{constants.ENDPOINT} does not respond",
        "models and data have to be here: lcbench prefetch on another machine, then mirror=PATH; "
        "the suite docs with model=minilm needs none",
    )


def _optional() -> Iterator[Check]:
    for name, purpose in _OPTIONAL.items():
        try:
            yield Check("optional", name, "ok", f"{version(name)}: {purpose}")
        except PackageNotFoundError:
            yield Check(
                "optional", name, "note", f"not installed: {purpose}", f"pip install {name}"
            )


def _plugins() -> Iterator[Check]:
    """Yield what installed packages add to lcbench; none of it is imported."""
    for kind in KINDS:
        try:
            for plugin in plugins(kind).values():
                found = f"{plugin.target} of {plugin.package}"
                yield Check("added", f"{kind}: {plugin.name}", "ok", found)
        except RequestError as error:
            yield Check("added", kind, "missing", str(error))


def _slurm() -> Check:
    if shutil.which("sbatch") is None:
        return Check("cluster", "slurm", "note", "no sbatch here: launch=slurm cannot be used")
    return Check("cluster", "slurm", "ok", ", ".join(_lines(["sbatch", "--version"])) or "sbatch")
