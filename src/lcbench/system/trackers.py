"""Experiment trackers with one interface: Trackio, Weights & Biases, MLflow.

None of them is a dependency: each is imported when a run begins to be tracked by it.
"""

from __future__ import annotations

import importlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

_PROJECT = "lcbench"
# MLflow takes these characters in names of metrics and parameters, and so many of a value.
_MLFLOW_UNSAFE = re.compile(r"[^\w\-. /]", flags=re.ASCII)
_MLFLOW_CHARACTERS = 500


class Tracker(ABC):
    """A tracker; all calls are made by one thread."""

    def __init__(self) -> None:
        self._module: Any = None

    @abstractmethod
    def begin(self, name: str, config: Mapping[str, str]) -> None:
        """Begin a run.

        Args:
            name: of the run.
            config: the settings by dotted key.
        """

    @abstractmethod
    def log(self, metrics: Mapping[str, float]) -> None:
        """Log numbers by name."""

    @abstractmethod
    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Log a table."""

    @abstractmethod
    def end(self, *, failed: bool) -> None:
        """End the run."""


class _WithRuns(Tracker):
    """Weights & Biases, and Trackio, whose interface is the same."""

    def __init__(self, module: str, project: str) -> None:
        super().__init__()
        self._name = module
        self._project = os.environ.get(project) or _PROJECT

    def begin(self, name: str, config: Mapping[str, str]) -> None:
        self._module = importlib.import_module(self._name)
        self._run = self._module.init(project=self._project, name=name, config=dict(config))

    def log(self, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics))

    def table(self, name: str, frame: pd.DataFrame) -> None:
        self._run.log({name: self._module.Table(dataframe=frame)})

    def end(self, *, failed: bool) -> None:
        self._run.finish()


class _Mlflow(Tracker):
    def begin(self, name: str, config: Mapping[str, str]) -> None:
        self._module = importlib.import_module("mlflow")
        if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & set(os.environ):
            self._module.set_experiment(_PROJECT)
        self._module.start_run(run_name=name)
        self._module.log_params(
            {self._safe(key): value[:_MLFLOW_CHARACTERS] for key, value in config.items()}
        )

    def log(self, metrics: Mapping[str, float]) -> None:
        self._module.log_metrics({self._safe(name): value for name, value in metrics.items()})

    def table(self, name: str, frame: pd.DataFrame) -> None:
        self._module.log_table(data=frame, artifact_file=f"{name}.json")

    def end(self, *, failed: bool) -> None:
        self._module.end_run(status="FAILED" if failed else "FINISHED")

    @staticmethod
    def _safe(name: str) -> str:
        return _MLFLOW_UNSAFE.sub("_", name)


_TRACKERS: Mapping[str, Callable[[], Tracker]] = {
    "trackio": lambda: _WithRuns("trackio", "TRACKIO_PROJECT"),
    "wandb": lambda: _WithRuns("wandb", "WANDB_PROJECT"),
    "mlflow": _Mlflow,
}
TRACKERS = tuple(_TRACKERS)
"""Values of `track=`, which are also the names of the packages."""


def check_tracker(name: str) -> None:
    """Check that a tracker's package is installed, before anything is computed.

    Raises:
        RequestError: it is not.
    """
    found = find_spec(name)
    # A folder `wandb`, as that package makes it, can be imported too: there is nothing to load.
    if found is None or found.loader is None:
        raise RequestError(f"track={name} needs a package: pip install {name}")


def tracker_of(name: str) -> Tracker:
    """Return a tracker by its name, one of `TRACKERS`."""
    return _TRACKERS[name]()
