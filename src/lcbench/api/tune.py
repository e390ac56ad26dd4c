"""`lcbench.tune`: makes temperatures by layer, head and length from texts without labels."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.run.tune import Tuned
    from lcbench.system.observer import Observer


def tune_asked(config: DictConfig, observer: Observer) -> Tuned:
    """Make the temperatures that a composed config of `tune` asks for.

    Args:
        config: the config.
        observer: receives progress.

    Raises:
        RequestError: the request is wrong, or needs a model, data or a package that is missing.
        StorageError: the file cannot be written.
    """
    from lcbench.api.overrides import refuse_another_name
    from lcbench.hub import cache
    from lcbench.run.tune import Sources, tune
    from lcbench.settings.tune import read_tune
    from lcbench.tasks.registry import SPLITS_RULE
    from lcbench.tasks.suites import resolve_all

    refuse_another_name()
    asked = read_tune(config)
    if asked.hub is not None:
        cache.use(asked.hub)
    if asked.offline:
        cache.go_offline()
    parts = resolve_all(asked.tasks, SPLITS_RULE, None, asked.sources, None)
    sources = Sources(tuple(parts.values()), asked.mirror, asked.offline, asked.unverified_data)
    return tune(asked.model, asked.out, asked.options, sources, observer, device=asked.device)


def tune(
    model: str | PathLike[str],
    out: str | PathLike[str],
    method: str = "entropy",
    tasks: str | Sequence[str] | None = None,
    *,
    mirror: str | PathLike[str] | None = None,
    offline: bool | None = None,
    progress: bool | Observer = True,
    config_dir: str | PathLike[str] | None = None,
    **keys: Any,
) -> Tuned:
    """Make temperatures by layer, head and length from texts without labels, and write a file.

    The same as `python -m lcbench tune model=… method=… out=…`. The file is applied with
    `tau={"heads": out}` and, where it does not depend on length, exported.

    Args:
        model: a config (`"minilm"`), a name on the hub, or a folder of a model.
        out: file to write, JSON.
        method: `"entropy"` (the entropy of each head at each length is that of short texts) or
            `"search"` (Optuna, on pseudo-queries, with the gain on held-out ones; needs
            `pip install 'lcbench[tune]'`).
        tasks: tasks, or files and folders of your own, whose documents are read; by default
            docstrings of installed libraries, which need no network.
        mirror: folder that is searched for the model and data first.
        offline: whether the network must not be used.
        progress: whether to show progress, or an `Observer` that receives it.
        config_dir: a folder of your own configs, as for `--config-dir`.
        keys: any other key of `python -m lcbench tune`: `texts`, `traced_lengths`, `trials` …

    Returns:
        The file (`path`), its content (`temperatures`), and a summary in sentences (`lines`, or
        `print`).

    Raises:
        RequestError: the texts are too few or too short, or a model, data or package is missing.
        StorageError: the file cannot be written.

    Examples:
        >>> tuned = lcbench.tune("minilm", "entropy.json")
        >>> lcbench.evaluate("minilm", tau={"heads": tuned.path})
    """
    from lcbench.api.compose import composed
    from lcbench.api.keywords import words_of
    from lcbench.hub import cache
    from lcbench.system.observer import observer_of

    own: dict[str, Any] = {"model": model, "out": out, "method": method, "tasks": tasks}
    own |= {"mirror": mirror, "offline": offline}
    words = words_of("tune", {**own, **keys})
    with cache.kept(), composed("tune", words, config_dir) as config:
        return tune_asked(config, observer_of(progress))
