"""`python -m lcbench prefetch`: fetches every model and dataset of a run into one folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.api.compose import compose_settings
from lcbench.cli.console import ConsoleObserver, complain, screen
from lcbench.errors import RequestError
from lcbench.hub.fetch import Wanted, fetch_all, wanted_by
from lcbench.settings.read import read_verify
from lcbench.system.signals import Stop
from lcbench.tasks.suites import check_pins, resolve_all

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.settings.schema import Settings
    from lcbench.system.observer import Observer


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    settings = compose_settings(config, "prefetch")
    # The hub client's threads keep reading from a slow server, even after a signal.
    with Stop():
        failed = prefetch(settings, ConsoleObserver(screen()), verify=read_verify(config))
    for wanted, reason in failed.items():
        complain(f"{wanted}: {reason}")
    return 1 if failed else 0


def prefetch(settings: Settings, observer: Observer, *, verify: bool) -> dict[str, str]:
    """Fetch everything that a run needs into the folder `mirror`.

    Args:
        settings: settings of the run.
        observer: receives progress.
        verify: whether to compare the digests of all files, including those already present.

    Returns:
        The repositories that could not be fetched, with the reasons.

    Raises:
        MissingError: something is missing, and the hub may not be contacted or does not answer.
        RequestError: `mirror` is not a folder, or its disk is too small.
        StorageError: the folder cannot be written.
    """
    folder = _folder(settings)
    with observer.doing("looking up the models and datasets of these tasks"):
        things = wanted_of(settings)
    return fetch_all(things, folder, observer, offline=settings.offline, verify=verify)


def wanted_of(settings: Settings) -> list[Wanted]:
    """Return the repositories that a run needs, each revision once.

    Raises:
        RequestError: a model's name or a task's subsets are invalid.
    """
    check_pins([one.name for one in settings.tasks], settings.suites)
    parts = resolve_all(
        settings.tasks, settings.protocol.splits, settings.protocol.subsets, settings.sources
    )
    return wanted_by(settings.models, parts.values())


def _folder(settings: Settings) -> Path:
    if settings.hub is not None:
        raise RequestError(
            f"mirror={settings.hub}: prefetch fills a folder: mirror=PATH. To fetch from that "
            f"address, set HF_ENDPOINT={settings.hub}"
        )
    if settings.mirror is None:
        raise RequestError("prefetch needs a folder to fill: mirror=PATH.")
    if settings.mirror.exists() and not settings.mirror.is_dir():
        raise RequestError(f"mirror={settings.mirror} is a file, not a folder to fill.")
    return settings.mirror
