"""`lcbench.tune`: recommends a repair, or makes temperatures by layer, head and length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, overload

from lcbench.errors import RequestError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.api.evaluate import Tasks
    from lcbench.api.recommend import Recommended
    from lcbench.run.tune import Tuned
    from lcbench.settings.tune import TuneSettings
    from lcbench.system.observer import Observer

Model = str | PathLike[str]


def tune_asked(config: DictConfig, asked: TuneSettings, observer: Observer) -> Tuned:
    """Make the temperatures that a composed config of `tune` asks for.

    Args:
        config: the config.
        asked: what was read of it.
        observer: receives progress.

    Raises:
        RequestError: the request is wrong, or needs a model, data or a package that is missing.
        StorageError: the file cannot be written.
    """
    from lcbench.api.overrides import given_overrides, refuse_another_name
    from lcbench.hub import cache
    from lcbench.run.tune import Sources, tune
    from lcbench.settings.tune import OWN_KEYS
    from lcbench.tasks.registry import SPLITS_RULE
    from lcbench.tasks.suites import resolve_all

    refuse_another_name()
    for word in given_overrides():
        key = word.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] not in OWN_KEYS:
            raise RequestError(f"{word} is not a key of method={config['method']}.")
    if asked.hub is not None:
        cache.use(asked.hub)
    if asked.offline:
        cache.go_offline()
    parts = resolve_all(asked.tasks, SPLITS_RULE, None, asked.sources, None)
    sources = Sources(tuple(parts.values()), asked.mirror, asked.offline, asked.unverified_data)
    return tune(asked.model, asked.out, asked.options, sources, observer, device=asked.device)


@overload
def tune(
    model: Model,
    out: str | PathLike[str] | None = None,
    method: Literal["choose"] = "choose",
    tasks: Tasks | Sequence[Tasks] | None = None,
    *,
    tau: Any = None,
    repairs: Sequence[Mapping[str, Any]] | None = None,
    results_dir: str | PathLike[str] | None = None,
    mirror: str | PathLike[str] | None = None,
    offline: bool | None = None,
    progress: bool | Observer = True,
    config_dir: str | PathLike[str] | None = None,
    **keys: Any,
) -> Recommended: ...


@overload
def tune(
    model: Model,
    out: str | PathLike[str],
    method: Literal["entropy", "search"],
    tasks: Tasks | Sequence[Tasks] | None = None,
    *,
    mirror: str | PathLike[str] | None = None,
    offline: bool | None = None,
    progress: bool | Observer = True,
    config_dir: str | PathLike[str] | None = None,
    **keys: Any,
) -> Tuned: ...


def tune(
    model: Model,
    out: str | PathLike[str] | None = None,
    method: str = "choose",
    tasks: Tasks | Sequence[Tasks] | None = None,
    *,
    tau: Any = None,
    repairs: Sequence[Mapping[str, Any]] | None = None,
    results_dir: str | PathLike[str] | None = None,
    mirror: str | PathLike[str] | None = None,
    offline: bool | None = None,
    progress: bool | Observer = True,
    config_dir: str | PathLike[str] | None = None,
    **keys: Any,
) -> Recommended | Tuned:
    """Recommend the repair to ship with a model, or none; or make temperatures.

    The same as `python -m lcbench tune model=… tasks=…`. Repairs are scored on the tasks as by
    `lcbench.evaluate`, and the gain of choosing one is cross-validated. Finished cells are kept in
    `results_dir`.

    With `method="entropy"` or `"search"` it makes temperatures by layer, head and length from texts
    without labels, and writes a file, which is applied with `tau={"heads": out}` and, where it does
    not depend on length, exported.

    Args:
        model: a config (`"minilm"`), a name on the hub, or a folder of a model.
        out: folder to which the model is written if a repair is recommended; None: it is not. With
            the other methods the file to write, JSON.
        method: `"choose"`: recommend a repair. `"entropy"`: the entropy of each head at each length
            is that of short texts. `"search"`: Optuna, on pseudo-queries, with the gain on held-out
            ones; needs `pip install 'lcbench[tune]'`.
        tasks: tasks, or files and folders of your own, on which repairs are scored; by default the
            suite `docs`. With the other methods, whose documents are read; by default docstrings of
            installed libraries.
        tau: temperatures to compare, as in `lcbench.evaluate`, whose keywords for other parts of
            repairs are also taken.
        repairs: combinations to compare instead. By default, six that can be exported.
        results_dir: folder of results; by default `results/runs`.
        mirror: folder that is searched for the model and data first.
        offline: whether the network must not be used.
        progress: whether to show progress, or an `Observer` that receives it.
        config_dir: a folder of your own configs, as for `--config-dir`.
        keys: any other key of `python -m lcbench tune`: `across`, `test`; `texts`, `trials` …

    Returns:
        The recommended repair (`repair`, None: the model as it is), the gain to expect
        (`expected`), and both in sentences (`lines`, or `print`). With the other methods the file
        (`path`), its content (`temperatures`), and a summary (`lines`).

    Raises:
        RequestError: the request is wrong; the texts are too few; a repair cannot be exported; a
            model, data or package is missing.
        StorageError: a file cannot be written.

    Examples:
        >>> print(lcbench.tune("./my-model", tasks="./my-texts.jsonl"))
        >>> tuned = lcbench.tune("minilm", "entropy.json", "entropy")
        >>> lcbench.evaluate("minilm", tau={"heads": tuned.path})
    """
    from lcbench.api.compose import composed
    from lcbench.api.keywords import words_of
    from lcbench.api.recommend import recommend_asked
    from lcbench.hub import cache
    from lcbench.settings.tune import ChooseSettings, read_tune
    from lcbench.system.observer import observer_of

    own: dict[str, Any] = {"model": model, "out": out, "method": method, "tasks": tasks}
    own |= {"tau": tau, "repairs": repairs, "results_dir": results_dir}
    own |= {"mirror": mirror, "offline": offline}
    words = words_of("tune", {**own, **keys})
    with cache.kept(), composed("tune", words, config_dir) as config:
        asked, observer = read_tune(config), observer_of(progress)
        if isinstance(asked, ChooseSettings):
            return recommend_asked(config, asked, observer)
        return tune_asked(config, asked, observer)
