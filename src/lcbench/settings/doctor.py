"""Converts the config of `lcbench doctor` to typed settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.settings.values import boolean_of, container_of, needed_path, one_of

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class DoctorSettings:
    """The settings of `python -m lcbench doctor`.

    Attributes:
        results_dir: results folder.
        offline: whether the network is left alone.
        torch: whether torch is imported and asked for its devices.
        format: `table` or `csv`.
    """

    results_dir: Path
    offline: bool
    torch: bool
    format: str


def read_doctor(config: DictConfig) -> DoctorSettings:
    """Return the checked settings of `lcbench doctor`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    one_of("format", value["format"], ("table", "csv"))
    return DoctorSettings(
        results_dir=needed_path("results_dir", value["results_dir"]),
        offline=boolean_of("offline", value["offline"]),
        torch=boolean_of("torch", value["torch"]),
        format=value["format"],
    )
