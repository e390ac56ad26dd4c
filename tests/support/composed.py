"""Settings as the command line's overrides compose them."""

from typing import Any

from hydra import compose, initialize_config_dir

from lcbench.settings import read as settings
from lcbench.settings import schema
from lcbench.settings.configs import config_folder


def composed(*overrides: str, config: str = "config") -> Any:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose(config, overrides=list(overrides))


def read(*overrides: str) -> schema.Settings:
    return settings.read({"minilm": composed(*overrides)})
