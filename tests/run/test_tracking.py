"""Trackers get settings, scores and tables as they come, and never fail a run.

Modules with the interface of the real ones stand in for them: what lcbench calls of trackio 0.27,
wandb 0.22 and MLflow 3, with the same names of arguments.
"""

import re
import sys
import threading
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from observers import Recorded

import lcbench
from lcbench.cli import app
from lcbench.errors import RequestError
from lcbench.run import tracking

TASK = "DocstringReranking"
SIZES = {"documents": 40, "documents_per_module": 8}


class WithRuns(ModuleType):
    """As Weights & Biases and Trackio."""

    class Table:
        def __init__(self, *, dataframe: pd.DataFrame) -> None:
            self.frame = dataframe

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, BuiltinImporter)
        self.began: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}
        self.tables: dict[str, pd.DataFrame] = {}
        self.ended = ""
        self.threads: set[str] = set()

    def init(self, *, project: str, name: str, config: dict[str, str]) -> SimpleNamespace:
        self.began = {"project": project, "name": name, "config": config}
        return SimpleNamespace(log=self._log, finish=self._finish)

    def _log(self, values: dict[str, Any]) -> None:
        self.threads.add(threading.current_thread().name)
        for name, value in values.items():
            if isinstance(value, self.Table):
                self.tables[name] = value.frame
            else:
                self.metrics[name] = value

    def _finish(self) -> None:
        self.ended = "FINISHED"


class Mlflow(WithRuns):
    """As MLflow, which refuses other characters in names."""

    def set_experiment(self, name: str) -> None:
        self.began["project"] = name

    def start_run(self, *, run_name: str) -> None:
        self.began["name"] = run_name

    def log_params(self, values: dict[str, str]) -> None:
        assert all(re.fullmatch(r"[/\w.\- ]+", name) for name in values)
        assert all(len(value) <= 500 for value in values.values())
        self.began["config"] = values

    def log_metrics(self, values: dict[str, float]) -> None:
        assert all(re.fullmatch(r"[/\w.\- ]+", name, flags=re.ASCII) for name in values)
        self._log(values)

    def log_table(self, *, data: pd.DataFrame, artifact_file: str) -> None:
        self.tables[artifact_file.removesuffix(".json")] = data

    def end_run(self, *, status: str) -> None:
        self.ended = status


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], WithRuns]:
    def install(name: str) -> WithRuns:
        module = (Mlflow if name == "mlflow" else WithRuns)(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    for name in ("WANDB_PROJECT", "TRACKIO_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return install


@pytest.fixture(scope="module")
def asked(
    make_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tracking")
    return {
        "model": make_model("bert"),
        "tasks": TASK,
        "tau": [0.9, {"query": 0.5, "document": 1.0}],
        "docs": SIZES,
        "offline": True,
        "results_dir": folder / "runs",
        "store": "none",
        "engine.scoring": 0,
    }


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_tracker_gets_settings_scores_and_tables(
    name: str, asked: dict[str, Any], installed: Callable[[str], WithRuns]
) -> None:
    module = installed(name)
    results = lcbench.evaluate(**asked, track=name, progress=Recorded())
    assert (module.began["project"], module.began["name"]) == ("lcbench", "run")
    assert module.began["config"]["protocol.dtype"] == "float32"
    assert module.threads == {f"{name} tracks"}
    by_repair = {str(row.tau): row for row in results.scores.itertuples()}
    # The whole name, since several models may have the same last part.
    model = "local__model"
    expected = {f"score/{model}/{TASK}/1": by_repair["1"].score}
    for tau, row in by_repair.items():
        policy = tau.replace("=", "_").replace(",", "_") if name == "mlflow" else tau
        if tau != "1":
            expected[f"score/{model}/{TASK}/{policy}"] = row.score
            expected[f"improvement/{model}/{TASK}/{policy}"] = row.improvement
    assert len(expected) == 5
    assert module.metrics == pytest.approx(expected)
    pd.testing.assert_frame_equal(module.tables["scores"], results.scores)
    assert list(module.tables["table1"]["Avg"]) == list(results.table1["Avg"])
    assert module.ended == "FINISHED"


def test_a_tracker_that_fails_does_not_fail_the_run(
    asked: dict[str, Any], installed: Callable[[str], WithRuns], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = installed("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "mine")

    def refuses(values: dict[str, Any]) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(module, "_log", refuses)
    observer = Recorded()
    results = lcbench.evaluate(**asked, track="wandb", progress=observer)
    assert len(results.scores) == 3
    assert module.began["project"] == "mine"
    assert observer.warnings == [
        "track=wandb: ConnectionError: no route to host. Nothing more is tracked; the run goes on."
    ]


def test_a_tracker_that_exits_or_never_answers(
    asked: dict[str, Any], installed: Callable[[str], WithRuns], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = installed("wandb")
    monkeypatch.setattr(module, "init", lambda **_: sys.exit("no login"))
    observer = Recorded()
    lcbench.evaluate(**asked, track="wandb", progress=observer)
    assert observer.warnings == ["track=wandb ended: SystemExit: no login."]
    ends = threading.Event()
    monkeypatch.setattr(module, "init", lambda **_: ends.wait(60))
    monkeypatch.setattr(tracking, "_END_SECONDS", 0.1)
    observer = Recorded()
    lcbench.evaluate(**asked, track="wandb", progress=observer)
    assert observer.warnings == ["track=wandb: not all was sent within 0 s."]
    ends.set()


def test_what_is_not_installed_is_refused_before_the_run(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = {**asked, "results_dir": tmp_path / "runs"}
    # A folder that the package has left can be imported as well.
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RequestError, match="track=wandb needs a package: pip install wandb"):
        lcbench.evaluate(**new, track="wandb", progress=Recorded())
    with pytest.raises(RequestError, match=r"track=tensorboard is not one of: trackio, wandb"):
        lcbench.evaluate(**new, track="tensorboard", progress=Recorded())
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def returned(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """What jobs return to the sweeper `seeker`, as Optuna's sweeper uses it."""
    plugins = Plugins.instance()
    # Hydra's search for plugins imports the module afresh.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    values: list[float | None] = []

    class Seeker(BasicSweeper):
        def sweep(self, arguments: list[str]) -> Any:
            batches = super().sweep(arguments)
            values.extend(job.return_value for batch in batches for job in batch)
            return batches

    # Plugins are all in one package.
    Seeker.__module__, Seeker.__qualname__ = "hydra_plugins.seeker", "Seeker"
    module = ModuleType(Seeker.__module__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(module, "Seeker", Seeker, raising=False)
    monkeypatch.setitem(plugins.class_name_to_class, f"{module.__name__}.Seeker", Seeker)
    ConfigStore.instance().store(
        group="hydra/sweeper",
        name="seeker",
        node={"_target_": f"{module.__name__}.Seeker", "max_batch_size": None, "params": None},
        provider="test",
    )
    return values


def test_a_sweeper_gets_the_improvement_of_each_job(
    asked: dict[str, Any], returned: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("store", "engine.scoring", "tasks", "model", "results_dir")
    words = [f"{key}={asked[key]}" for key in keys] + ["offline=true", "hydra/sweeper=seeker"]
    words += [f"docs.{key}={size}" for key, size in SIZES.items()]
    monkeypatch.setattr(sys, "argv", ["lcbench"])
    assert app.run(["-m", *words, "tau=0.9,1"]) == 0
    scores = lcbench.load(asked["results_dir"]).scores
    (gain,) = scores[scores["tau"].astype(str) == "0.9"]["improvement"]
    assert returned == [pytest.approx(gain), 0.0]
