"""From a composed config to settings: each model of a sweep by itself; a frozen sweep's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lcbench.cli.overrides import choices, refuse_another_name
from lcbench.settings.configs import model_keys

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.plan.manifest import Manifest
    from lcbench.settings.schema import Settings

# What the command line may say of a frozen sweep.
_OPEN = {
    "engine",
    "store",
    "mirror",
    "unverified_data",
    "offline",
    "retries",
    "cell_minutes",
}
# What it has to say again: whoever can write in a folder of results can change a manifest.
TRUSTS = "model.trust_remote_code=true"


def thawed(frozen: Manifest, config: DictConfig) -> Settings:
    """Return the settings of a frozen sweep, with the runtime knobs of the command line.

    Raises:
        RequestError: the command line has a key that a frozen sweep does not leave open.
    """
    from lcbench.errors import RequestError
    from lcbench.settings import read
    from lcbench.settings.frozen import thaw

    kept = thaw(frozen.settings, frozen.results_dir)
    given = read.read_run(config).results_dir
    if choices("results_dir")[1] and given.resolve() != frozen.results_dir.resolve():
        raise RequestError(
            f"results_dir={given}: the results of manifest={frozen.folder} are those that it lies "
            "in."
        )
    overrides, _ = choices("manifest")
    check_trust(frozen, kept, overrides)
    groups = {_group(one) for one in overrides if one.lstrip("+") != TRUSTS}
    if closed := sorted(groups - _OPEN - {"element", "launch", "results_dir", "hydra"}):
        raise RequestError(
            f"{', '.join(closed)}: manifest={frozen.folder} is frozen, and says this itself. Open "
            f"are {', '.join(sorted(_OPEN))}; for another sweep: python -m lcbench plan"
        )
    now = compose_settings(config)
    told: dict[str, Any] = {name: getattr(now, name) for name in groups & _OPEN if name != "mirror"}
    if "mirror" in groups:
        told |= {"mirror": now.mirror, "hub": now.hub}
    return replace(kept, **told)


def open_keys() -> list[str]:
    """Return what the command line says of a frozen sweep, as it was said."""
    overrides, _ = choices("manifest")
    return [one for one in overrides if _group(one) in _OPEN or one.lstrip("+") == TRUSTS]


def check_trust(frozen: Manifest, kept: Settings, overrides: Sequence[str]) -> None:
    """Refuse a frozen sweep that runs code of a model's repository, unless it is asked for again.

    Args:
        frozen: the sweep.
        kept: its settings.
        overrides: of the command line.

    Raises:
        RequestError: naming the models whose code would run.
    """
    from lcbench.errors import RequestError

    trusted = [f"{one.name}@{one.revision}" for one in kept.models if one.trust_remote_code]
    if trusted and TRUSTS not in [one.lstrip("+") for one in overrides]:
        raise RequestError(
            f"manifest={frozen.folder} runs code of the repositories of its models: "
            f"{', '.join(trusted)}. Whoever can write there can have changed that; if you trust "
            f"them, say so on this command line as well: {TRUSTS}"
        )


def _group(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition(".")[0]


def compose_settings(config: DictConfig, config_name: str = "config") -> Settings:
    """Return the settings of a composed config; each model of a sweep is composed by itself.

    Args:
        config: composed by Hydra.
        config_name: of the file in `conf` that it was composed from.
    """
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig

    from lcbench.settings import read

    overrides, chosen = choices("model")
    refuse_another_name()
    names = read.model_names(config)
    label = str(HydraConfig.get().runtime.choices.get("sweep") or "run")
    # A model named on the command line takes the place of the sweep's.
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
