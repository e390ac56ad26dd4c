"""Settings as the command line's overrides compose them."""

from copy import deepcopy
from functools import cache

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lcbench.settings import read as settings
from lcbench.settings import schema
from lcbench.settings.configs import config_folder, config_groups


def composed(*overrides: str, config: str = "config") -> DictConfig:
    """Return what Hydra composes of these overrides, without its own node.

    Composing takes Hydra ten times as long as setting values in what was composed before, which is
    the last that it does itself. So the choices of configs are composed once in a process. What is
    more than a choice or a value (`+key=`, `~key`, a key that there is not) is left to Hydra.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    if any(one.type is not OverrideType.CHANGE or one.is_sweep_override() for one in parsed):
        return composed_by_hydra(*overrides, config=config)
    groups = config_groups()
    chosen = tuple(str(one.input_line) for one in parsed if one.key_or_group in groups)
    made = deepcopy(_of_choices(config, chosen))
    try:
        for one in parsed:
            if one.key_or_group not in groups:
                OmegaConf.update(made, one.key_or_group, one.value(), merge=True)
    except OmegaConfBaseException:
        return composed_by_hydra(*overrides, config=config)
    return made


@cache
def _of_choices(config: str, choices: tuple[str, ...]) -> DictConfig:
    return composed_by_hydra(*choices, config=config)


def composed_by_hydra(*overrides: str, config: str = "config") -> DictConfig:
    with hydra_at_hand():
        return compose(config, overrides=list(overrides))


def hydra_at_hand() -> initialize_config_dir:
    """Return a context in which Hydra composes, as it does while a command is carried out."""
    return initialize_config_dir(str(config_folder()), version_base="1.3")


def read(*overrides: str) -> schema.Settings:
    return settings.read({"minilm": composed(*overrides)})
