"""Turns arguments, as on the command line, into settings; Hydra composes the config.

Each model of a sweep is composed separately; a frozen sweep brings its own settings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from lcbench.api.explain import explain, refuse_lists_of_configs
from lcbench.api.overrides import choices, read_words, refuse_another_name
from lcbench.errors import RequestError
from lcbench.settings.configs import config_folder, model_keys
from lcbench.system import thirdparty

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.plan.manifest import Manifest
    from lcbench.settings.schema import Settings

# Keys that may be given with a frozen sweep.
_OPEN = {
    "engine",
    "store",
    "mirror",
    "unverified_data",
    "offline",
    "retries",
    "cell_minutes",
}
# Keys that are not part of a request.
_BESIDE = {"element", "hydra", "launch", "results_dir", "track"}
# A key that must be repeated: anyone who can write in the results folder can change a manifest.
TRUSTS = "model.trust_remote_code=true"
# Hydra keeps one global state per process.
_ALONE = RLock()


@contextmanager
def composed(
    config_name: str, words: Sequence[str], config_dir: str | PathLike[str] | None = None
) -> Iterator[DictConfig]:
    """Compose a config without a command line; it can be read while the context lasts.

    The caller's own use of Hydra is not affected.

    Args:
        config_name: name of a file in `conf`.
        words: `key=value`, as on the command line.
        config_dir: folder of the user's own configs, like `--config-dir`.

    Raises:
        RequestError: the words are invalid, with the message of the command line; or there is no
            such folder.
    """
    import yaml
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    folders = [config_folder()]
    if config_dir is not None:
        is_path = isinstance(config_dir, str | PathLike)
        if not is_path or not Path(config_dir).expanduser().is_dir():
            raise RequestError(f"config_dir={config_dir} is not a folder.")
        folders.append(Path(config_dir).expanduser())
        words = [f"--config-dir={folders[1]}", *words]
    with _ALONE:
        known = HydraConfig.instance()
        before = known.cfg
        try:
            overrides = read_words(words, config_name)[len(folders) - 1 :]
            with initialize_config_dir(str(folders[0]), version_base="1.3"):
                if config_dir is not None:
                    thirdparty.initialize_hydra(folders)
                config = compose(config_name, overrides=overrides, return_hydra_config=True)
                known.set_config(config)
                with open_dict(config):
                    del config["hydra"]
                refuse_lists_of_configs(overrides)
                yield config
        except (HydraException, OmegaConfBaseException) as error:
            raise RequestError(explain(error, config_name)) from None
        except yaml.YAMLError as error:
            raise RequestError(f"A config cannot be read: {error}") from None
        finally:
            known.cfg = before


def thawed(
    frozen: Manifest,
    config: DictConfig,
    config_name: str = "config",
    also: Collection[str] = (),
) -> Settings:
    """Return the settings of a frozen sweep, with runtime keys from the command line.

    Args:
        frozen: the sweep.
        config: config composed by Hydra.
        config_name: name of the file in `conf` that it was composed from.
        also: further keys that the command takes with a manifest.

    Raises:
        RequestError: the command line has a key that a frozen sweep fixes.
    """
    from lcbench.settings import read
    from lcbench.settings.frozen import thaw

    kept = thaw(frozen.settings, frozen.results_dir)
    given = read.read_run(config).results_dir
    if choices("results_dir")[1] and given.resolve() != frozen.results_dir.resolve():
        raise RequestError(
            f"results_dir={given}: manifest={frozen.folder} belongs to the results folder that "
            "contains it."
        )
    overrides, _ = choices("manifest")
    check_trust(frozen, kept, overrides)
    groups = {_group(one) for one in overrides if one.lstrip("+") != TRUSTS}
    if closed := sorted(groups - _OPEN - {*also, *_BESIDE}):
        raise RequestError(
            f"{', '.join(closed)}: manifest={frozen.folder} is a frozen sweep, which fixes this. "
            f"You can set {', '.join(sorted(_OPEN))}; for another sweep: python -m lcbench plan"
        )
    now = compose_settings(config, config_name)
    changed: dict[str, Any] = {
        name: getattr(now, name) for name in groups & _OPEN if name != "mirror"
    }
    if "mirror" in groups:
        changed |= {"mirror": now.mirror, "hub": now.hub}
    return replace(kept, **changed)


def open_keys() -> list[str]:
    """Return the command line's overrides that a frozen sweep leaves open."""
    overrides, _ = choices("manifest")
    kept = _OPEN | {"track"}
    return [one for one in overrides if _group(one) in kept or one.lstrip("+") == TRUSTS]


def check_trust(frozen: Manifest, kept: Settings, overrides: Sequence[str]) -> None:
    """Refuse a frozen sweep that runs code of a model's repository or of a task class.

    It may be confirmed on the command line.

    Args:
        frozen: the sweep.
        kept: its settings.
        overrides: overrides of the command line.

    Raises:
        RequestError: it is not confirmed; names the models and classes whose code would run.
    """

    trusted = [f"{one.name}@{one.revision}" for one in kept.models if one.trust_remote_code]
    classes = [one.target for one in kept.own_classes if not one.is_installed]
    if classes and TRUSTS not in [one.lstrip("+") for one in overrides]:
        raise RequestError(
            f"manifest={frozen.folder} imports task classes: {', '.join(classes)}. Anyone who can "
            "write there may have changed the manifest; if you trust it, repeat on this command "
            f"line: {TRUSTS}"
        )
    if trusted and TRUSTS not in [one.lstrip("+") for one in overrides]:
        raise RequestError(
            f"manifest={frozen.folder} runs code from the repositories of its "
            f"models: {', '.join(trusted)}. Anyone who can write there may have changed the "
            f"manifest; if you trust them, repeat on this command line: {TRUSTS}"
        )


def _group(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition(".")[0]


def compose_settings(config: DictConfig, config_name: str = "config") -> Settings:
    """Return the settings of a composed config; each model of a sweep is composed separately.

    Args:
        config: config composed by Hydra.
        config_name: name of the file in `conf` that it was composed from.
    """
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig

    from lcbench.settings import read

    overrides, chosen = choices("model")
    refuse_another_name()
    names = read.model_names(config)
    label = str(HydraConfig.get().runtime.choices.get("sweep") or "run")
    # A model on the command line replaces the sweep's.
    if names is None or chosen:
        name = chosen[-1] if chosen else _default_model()
        return read.read({name: config}, label)
    return read.read(
        {name: compose(config_name, overrides=[*overrides, *model_keys(name)]) for name in names},
        label,
    )


def _default_model() -> str:
    from hydra.core.hydra_config import HydraConfig

    return str(HydraConfig.get().runtime.choices["model"])
