"""An installed package adds a task and a measure; nothing but an installed package does."""

import csv
import io
import shutil
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from observers import Recorded, Unwarned

import lcbench
from lcbench.api.compose import check_trust
from lcbench.cli import app
from lcbench.errors import RequestError
from lcbench.measures import MEASURES, every_measure
from lcbench.measures.collapse import Options
from lcbench.repair import correction, fit
from lcbench.system import plugins

EXAMPLE = Path(__file__).parents[2] / "docs" / "plugin"


def install(folder: Path, version: str = "0.1", name: str = "lcbench-example") -> Path:
    """Install the example as pip does: its modules, and a folder with its entry points."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copytree(EXAMPLE / "lcbench_example", folder / "lcbench_example", dirs_exist_ok=True)
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages can be installed in, of which nothing is left afterwards."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    for module in [one for one in sys.modules if one.startswith("lcbench_example")]:
        monkeypatch.delitem(sys.modules, module)
    plugins._found.cache_clear()
    return folder


@pytest.fixture
def installed(environment: Path) -> Path:
    return install(environment)


def keywords(folder: Path, model: Path) -> dict[str, Any]:
    here = {"device": "cpu", "offline": True, "store": "none", "engine.scoring": 0}
    return {"model": model, "results_dir": folder / "runs", "progress": Unwarned(), **here}


def test_a_task_of_a_package(
    installed: Path, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    asked = keywords(tmp_path, make_model("bert"))
    results = lcbench.evaluate(tasks="ExampleRetrieval", tau=0.5, **asked)
    assert set(results.scores["task"]) == {"own-ExampleRetrieval"}
    assert results.scores["score"].between(0, 100).all()
    assert results.items().query("tau == 1")["id"].tolist() == ["q0", "q1", "q2"]
    (provenance,) = (tmp_path / "runs").glob("*/results/*/*/*.provenance.jsonl")
    assert '"package": "lcbench-example 0.1"' in provenance.read_text(encoding="utf-8")


def test_a_measure_of_a_package(
    installed: Path, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    names = [one.name for one in every_measure()]
    assert names == [*(one.name for one in MEASURES), "median_cosine"]
    rows = np.eye(3)[[0, 0, 1]]
    assert every_measure()[-1].compute(rows) == 0.0
    assert every_measure()[-1].compute(rows[:2]) == 1.0
    texts = [
        ". ".join([f"This is sentence {i} of number {j}" for i in range(6 + j % 12)])
        for j in range(80)
    ]
    small = {"whole_texts": 60, "passages": 30, "sentences": [2], "resamples": 1_000}
    model = make_model("bert-of-512")
    found = lcbench.collapse(model, texts=texts, progress=Recorded(), **small)
    assert "Median cosine" in found.tables["space"].columns


def test_a_correction_of_a_package(
    installed: Path, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    asked = keywords(tmp_path, make_model("bert"))
    corrections = ["standardise", {"standardise": 50}]
    results = lcbench.evaluate(tasks="ExampleRetrieval", correct=corrections, **asked)
    version = "package=lcbench-example-0.1"
    names = {f"standardise,{version}", f"standardise=50,{version}"}
    assert set(results.scores["correct"]) == {"", *names}
    folders = (tmp_path / "runs").glob("*/results/*/*/experiments/*")
    assert {one.name for one in folders} == {f"correct_{name}" for name in names}


def test_a_correction_is_fitted_by_the_package_and_known_by_its_version(
    environment: Path,
) -> None:
    install(environment)
    rows = np.random.default_rng(0).normal(2.0, [1.0, 3.0, 5.0], (50, 3)).astype(np.float32)
    asked = correction.parse({"standardise": 50})
    assert correction.parse(asked.written()) == asked
    fitted = fit.fit(asked, rows)
    expected = (rows - rows.mean(axis=0, dtype=np.float64)) / np.sqrt(rows.std(axis=0))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.apply(rows), expected, atol=1e-5)
    for value, message in (
        ({"standardise": {"strength": 1}}, "standardise takes power, on, not strength"),
        ({"standardise": 0}, "power is not a whole number of at least 1"),
        ("standardize", "Did you mean standardise"),
    ):
        with pytest.raises(RequestError, match=message):
            correction.parse(value)
    shutil.rmtree(environment / "lcbench_example-0.1.dist-info")
    install(environment, "0.2")
    plugins._found.cache_clear()
    # As a manifest from before has it.
    with pytest.raises(RequestError, match=r"installed is lcbench-example-0\.2"):
        fit.fit(asked, rows)
    assert correction.parse("standardise").canonical == "standardise,package=lcbench-example-0.2"


@pytest.mark.parametrize("body", ["return embeddings, None", "return None, None", "raise KeyError"])
def test_a_correction_that_returns_no_map(body: str, environment: Path) -> None:
    install(environment)
    (environment / "lcbench_example" / "repairs.py").write_text(
        "from lcbench.repair.added import AddedCorrection\n"
        f"def fit(embeddings, number):\n    {body}\n"
        "STANDARDISE = AddedCorrection(fit)\n",
        encoding="utf-8",
    )
    with pytest.raises(fit.FitError, match="correct=standardise,package=lcbench-example-0"):
        fit.fit(correction.parse("standardise"), np.ones((5, 3), dtype=np.float32))
    with pytest.raises(RequestError, match="standardise takes no number"):
        correction.parse({"standardise": 3})


def test_measurements_are_identified_by_what_packages_add(environment: Path) -> None:
    plain = Options().digest(["a"])
    install(environment)
    plugins._found.cache_clear()
    with_it = Options().digest(["a"])
    assert with_it != plain
    shutil.rmtree(environment / "lcbench_example-0.1.dist-info")
    install(environment, "0.2")
    plugins._found.cache_clear()
    assert Options().digest(["a"]) not in (plain, with_it)


def test_doctor_lists_them_without_importing_them(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["doctor", "offline=true", "format=csv"]) == 0
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert rows["measures: median_cosine"]["found"] == (
        "lcbench_example.measures:MEDIAN_COSINE of lcbench-example 0.1"
    )
    assert "lcbench_example" not in sys.modules


def test_the_current_folder_and_a_results_folder_add_nothing(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = install(tmp_path / "runs")
    monkeypatch.chdir(here)
    # As `python -m lcbench` has it, and as a task class in the current folder leaves it.
    for added in ("", str(here)):
        monkeypatch.setattr(sys, "path", [added, *sys.path])
        assert [one.name for one in metadata.distributions()].count("lcbench-example")
        assert plugins.plugins("tasks") == {}
    with pytest.raises(RequestError, match="ExampleRetrieval: there is no such task"):
        lcbench.load(here, tasks="ExampleRetrieval")


def test_two_packages_of_one_name_and_one_that_is_broken(environment: Path) -> None:
    install(environment)
    install(environment, name="another")
    with pytest.raises(RequestError, match=r"The packages .* both add ExampleRetrieval to lcbench"):
        plugins.plugins("tasks")
    shutil.rmtree(environment / "another-0.1.dist-info")
    plugins._found.cache_clear()
    (environment / "lcbench_example" / "measures.py").write_text("1 / 0", encoding="utf-8")
    with pytest.raises(RequestError, match=r"package lcbench-example 0\.1: .* \(ZeroDivisionError"):
        every_measure()
    (environment / "lcbench_example" / "measures.py").write_text("MEDIAN_COSINE = 1")
    sys.modules.pop("lcbench_example.measures", None)
    with pytest.raises(RequestError, match=r"is not an lcbench\.measures\.Measure of that name"):
        every_measure()


def test_a_manifest_with_a_task_of_a_package_needs_no_confirmation(
    installed: Path, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from dataclasses import replace
    from types import SimpleNamespace

    from composed import read

    settings = read("tasks=[ExampleRetrieval]", f"results_dir={tmp_path}")
    frozen: Any = SimpleNamespace(folder=tmp_path)
    check_trust(frozen, settings, [])
    (one,) = settings.own_classes
    # Of another version, another place, or another class of the same package.
    for other in (
        replace(one, package="lcbench-example 0.2"),
        replace(one, folder=str(tmp_path)),
        replace(one, target="os:system"),
    ):
        with pytest.raises(RequestError, match="imports task classes"):
            check_trust(frozen, replace(settings, own_classes=(other,)), [])
