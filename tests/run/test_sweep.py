"""A sweep: what is found, what is refused before anything is computed, what the log says."""

import json
import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import chaos_program
import pytest
from observers import Unwarned

from lcbench.api.evaluate import carry_out
from lcbench.errors import RequestError
from lcbench.plan.manifest import latest, read
from lcbench.repair.repair import NO_REPAIR, Repair, parse_all
from lcbench.reporting.publish import publish
from lcbench.reporting.select import Extent, report_folder
from lcbench.results.content import read_provenance
from lcbench.results.folder import Results
from lcbench.run import sweep
from lcbench.run.sweep import Outcome
from lcbench.settings.frozen import freeze, thaw
from lcbench.system.observer import Observer
from lcbench.tempscale.policy import parse

Begun = Callable[..., Any]


def go(settings: Any, **options: Any) -> Outcome:
    return carry_out(settings, Unwarned(), **options)


@pytest.fixture(scope="module")
def finished(make_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Settings of one task at two temperatures, and its results."""
    folder = tmp_path_factory.mktemp("sweep")
    chaos_program.make_data(folder / "mirror")
    model = Path(shutil.copytree(make_model("bert"), folder / "model"))
    settings = chaos_program.settings_of(folder, model, "runs")
    few = replace(settings, tasks=settings.tasks[:1], repairs=(NO_REPAIR, Repair(parse(0.8))))
    assert go(few).found == 0
    return few


@pytest.fixture
def request_of(finished: Any, tmp_path: Path) -> Callable[..., Any]:
    """Make the same request of a copy of the results, of which no cell may be begun."""

    def make(**changes: Any) -> Any:
        runs = Path(shutil.copytree(finished.results_dir, tmp_path / "runs"))
        return replace(finished, results_dir=runs, **changes)

    return make


@pytest.fixture
def _nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: Any, **__: Any) -> None:
        pytest.fail("a runner was made")

    monkeypatch.setattr(sweep, "Runner", begun)


@pytest.mark.usefixtures("_nothing_is_computed")
def test_what_is_finished_is_found(request_of: Callable[..., Any]) -> None:
    outcome = go(request_of())
    assert [cell.repair.canonical for cell in outcome.cells] == ["1", "0.8"]
    assert (outcome.found, outcome.failed, outcome.stopped) == (2, {}, False)


@pytest.mark.usefixtures("_nothing_is_computed")
def test_results_on_other_data_are_not_taken_for_these(
    request_of: Callable[..., Any], tmp_path: Path
) -> None:
    mirror = Path(shutil.copytree(request_of().mirror, tmp_path / "mirror"))
    (file,) = (mirror / "mteb" / "sts12-sts").glob("test.*")
    file.write_bytes(file.read_bytes() + file.read_bytes().splitlines(keepends=True)[0])
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(RequestError, match=r"has results on other data .*: STS12 \(mirror sha256"):
        go(request_of(mirror=mirror))


@pytest.mark.usefixtures("_nothing_is_computed")
def test_cells_that_could_not_be_compared_are_not_computed(
    request_of: Callable[..., Any],
) -> None:
    settings = request_of(repairs=(NO_REPAIR, Repair(parse(0.8)), Repair(parse(0.5))))
    for path in settings.results_dir.rglob("*.provenance.jsonl"):
        known = json.loads(path.read_text(encoding="utf-8"))
        known["versions"]["mteb"] = "2.0.0"
        path.write_text(json.dumps(known), encoding="utf-8")
    with pytest.raises(RequestError, match=r"made with other versions: mteb 2\.0\.0, now .*"):
        go(settings)
    # All that is asked for is finished: nothing is compared with anything new.
    assert go(replace(settings, repairs=settings.repairs[:2])).found == 2


@pytest.mark.usefixtures("_nothing_is_computed")
def test_a_frozen_sweep_runs_its_own_cells_alone(request_of: Callable[..., Any]) -> None:
    settings = request_of()
    frozen = read(latest(settings.results_dir))
    assert go(settings, frozen=frozen, element=0).found == 2
    with pytest.raises(RequestError, match=r"element=7: the sweep has elements 0 to 0"):
        go(settings, frozen=frozen, element=7)
    fewer = replace(settings, repairs=settings.repairs[:1])
    with pytest.raises(RequestError, match=r"τ = 0\.8, STS12 .* is no longer one of its cells"):
        go(fewer, frozen=frozen)


def test_the_log_says_how_it_began_and_ended(finished: Any) -> None:
    (log,) = (finished.results_dir / "sweeps").rglob("*.log")
    lines = log.read_text(encoding="utf-8").splitlines()
    assert "begins: 2 cells, 0 of them finished" in lines[0]
    assert lines[-1].endswith("[-] ends")


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_loaded(
    request_of: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    settings = replace(request_of(), results_dir=tmp_path / "file" / "runs")
    with pytest.raises(RequestError, match=r"results_dir=.*runs cannot be written"):
        go(settings)


def test_results_are_those_of_the_cells(finished: Any) -> None:
    results = Results(finished.results_dir)
    for cell in go(finished).cells:
        assert results.provenance(cell)["policy"] == cell.repair.canonical
        assert results.is_done(cell, pytest.fail)


def test_without_a_screen_a_sweep_is_run_and_reported(
    finished: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in a notebook: nothing of rich is there, and what is said is in Python's log."""
    for name in ["rich", *(one for one in sys.modules if one.startswith("rich."))]:
        monkeypatch.setitem(sys.modules, name, None)
    settings = replace(finished, results_dir=tmp_path / "runs")
    with caplog.at_level(logging.INFO, logger="lcbench"):
        outcome = carry_out(settings, Observer())
    assert (len(outcome.cells), outcome.found, outcome.failed) == (2, 0, {})
    said = [one.getMessage() for one in caplog.records]
    assert [one.split()[0] for one in said if one.startswith(("1/2", "2/2"))] == ["1/2", "2/2"]
    few = Extent(resamples=0)
    report = report_folder(Results(settings.results_dir), None, tmp_path / "r", pytest.fail, few)
    assert len(report.findings.score_tables) == 1
    assert {"index.html", "report.json", "table1.csv"} <= set(publish(report))
    assert (tmp_path / "r" / "index.html").is_file()


@pytest.fixture(scope="module")
def corrected(finished: Any) -> Any:
    """The same request with corrections, run after it with its store, and its outcome."""
    repairs = parse_all({"tau": [1.0, 0.8], "correct": ["centre", {"abtt": 3}]})
    settings = replace(finished, repairs=repairs)
    outcome = go(settings)
    assert (outcome.found, outcome.failed) == (1, {})
    return settings, outcome


def test_corrections_share_the_embeddings_of_their_temperature(corrected: Any) -> None:
    settings, outcome = corrected
    results = Results(settings.results_dir)
    folders = [results.files(cell).folder.name for cell in outcome.cells[1:]]
    assert folders == [
        *("correct_centre", "correct_abtt=3"),
        *("correct_centre__tau_0.8", "correct_abtt=3__tau_0.8"),
    ]
    encoded: dict[Any, list[int]] = {}
    for cell in outcome.cells[1:]:
        provenance = read_provenance(results.files(cell))
        assert provenance["policy"] == cell.repair.canonical
        (record,) = provenance["corrections"]
        assert record["fitted_on"] == "the task's texts"
        assert (provenance["proof"] is None) is cell.repair.policy.is_baseline
        encoded.setdefault(cell.repair.policy, []).append(provenance["encoded_texts"])
    # The second correction finds all of them in the store.
    assert len(encoded) == 2
    assert all(first > 0 and then == [0] for first, *then in encoded.values())


def test_corrections_are_frozen_with_their_sweep(corrected: Any) -> None:
    settings, outcome = corrected
    manifest = latest(settings.results_dir)
    assert manifest is not None
    frozen = read(manifest)
    assert [line.policy for line in frozen.lines] == [
        cell.repair.canonical for cell in outcome.cells
    ]
    assert str(frozen.lines[-1]).endswith("τ = 0.8 + abtt=3, STS12")
    assert thaw(frozen.settings, settings.results_dir).repairs == settings.repairs
    # A sweep of temperatures has the same digest as before there were corrections.
    only = replace(settings, repairs=(NO_REPAIR, Repair(parse(0.8))))
    assert freeze(only)["policies"] == [[1.0, False], [0.8, False]]


def test_a_report_has_each_correction_beside_the_temperatures(
    corrected: Any, tmp_path: Path
) -> None:
    settings, _ = corrected
    report = report_folder(
        Results(settings.results_dir), None, tmp_path / "report", print, Extent(resamples=1000)
    )
    publish(report)
    (scores,) = (one for one in report.findings.tables if one.name == "scores")
    assert scores.header[2:] == (
        *("τ = 1", "τ = 0.8", "abtt=3", "τ = 0.8 + abtt=3", "centre", "τ = 0.8 + centre"),
    )
    values = [entry.value for entry in scores.sections[0].rows[0][2:]]
    assert len(set(values)) == len(values)


def test_an_extension_is_scored_proven_and_frozen(finished: Any) -> None:
    """What is read under it belongs to the repair: the window of the protocol stays as it was."""
    asked = {"tau": [1.0, 0.8], "extend": [None, {"pi": 128, "short": "kept"}]}
    settings = replace(finished, repairs=parse_all(asked))
    outcome = go(settings)
    assert outcome.failed == {}
    results = Results(settings.results_dir)
    names = {cell.repair.canonical: results.files(cell) for cell in outcome.cells}
    assert names["extend=pi=128,short=kept"].folder.name == "extend_pi=128,short=kept"
    extended = ("extend=pi=128,short=kept", "0.8 + extend=pi=128,short=kept")
    for record in (read_provenance(names[name]) for name in extended):
        (change,) = record["proof"]["changes"]
        assert (record["window"], change["window"]) == (48, 128)
        assert change["change"] == "pi=128,short=kept"
        assert (change["positions"], change["factor"]) == (64, 2)
        assert change["largest_error"] <= 2**-24
    manifest = latest(settings.results_dir)
    assert manifest is not None
    thawed = thaw(read(manifest).settings, settings.results_dir)
    assert thawed.repairs == settings.repairs


@pytest.mark.usefixtures("_nothing_is_computed")
@pytest.mark.parametrize(
    ("extend", "message"),
    [
        ({"ntk": 128}, "Suitable: extend={pi: 128}, {gp: 128} or {rp: 128}"),
        ({"pi": 32}, "the model reads 48 tokens of a text without it"),
        ({"pi": 60}, "extend={window: 60} reads as many"),
    ],
)
def test_an_extension_that_does_not_suit_ends_the_request(
    extend: Any, message: str, request_of: Callable[..., Any]
) -> None:
    with pytest.raises(RequestError) as refused:
        go(request_of(repairs=parse_all({"extend": extend})))
    assert message in str(refused.value)
