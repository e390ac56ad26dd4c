"""The public functions: what they return, what of it is on disk, and how they refuse."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chaos_program
import numpy as np
import pandas as pd
import pytest
from observers import Recorded

import lcbench
from lcbench.api import evaluate as module
from lcbench.errors import LcbenchError, RequestError, StorageError
from lcbench.hub import cache
from lcbench.plan.manifest import latest
from lcbench.run import sweep

SMALL = {"documents": 40, "documents_per_module": 8}
TASKS = ["STS12", "DocstringRetrieval"]


@pytest.fixture(scope="module")
def asked(
    make_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A request of a tiny model, and where its data is."""
    return {
        **chaos_program.request_of(tmp_path_factory.mktemp("api"), make_model("bert")),
        "tasks": TASKS,
        "tau": [0.9, {"query": 0.5, "document": 1.0}],
        "docs": SMALL,
    }


@pytest.fixture(scope="module")
def results(asked: dict[str, Any]) -> Any:
    return lcbench.evaluate(**asked, progress=Recorded())


def test_there_are_these_names_and_importing_them_costs_nothing() -> None:
    assert dir(lcbench) == [
        *("__version__", "card", "collapse", "doctor", "evaluate", "export", "inject", "load"),
        *("pack", "report", "tune"),
    ]
    code = (
        "import lcbench, sys\n"
        "names = [name for name in dir(lcbench) if name not in ('__version__', 'inject')]\n"
        "[getattr(lcbench, name) for name in names]\n"
        "print([name for name in ('torch', 'mteb', 'transformers', 'datasets', 'pandas') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = lcbench.evalute


def test_scores_are_a_row_per_task_and_temperature(results: Any) -> None:
    scores = results.scores
    assert list(scores.columns) == [
        *("protocol", "window", "model", "revision", "column", "task", "tau", "score"),
        *("baseline", "improvement"),
    ]
    taus = ["1", "0.9", "query=0.5,document=1"]
    found = sorted(map(tuple, scores[["task", "tau"]].to_numpy()))
    assert found == sorted((task, tau) for task in TASKS for tau in taus)
    base = scores[scores["tau"] == "1"].set_index("task")["score"]
    assert (scores["baseline"] == base.loc[scores["task"]].to_numpy()).all()
    gains = 100 * (scores["score"] / scores["baseline"] - 1)
    known = scores["baseline"] > 0
    np.testing.assert_allclose(scores["improvement"][known], gains[known], atol=1e-9)
    assert scores["score"].dtype == scores["improvement"].dtype == float
    assert results.failed == {}
    assert results.table1.columns.tolist() == ["STS", "Retr", "Avg"]


def test_items_give_the_scores(results: Any) -> None:
    items = results.items()
    retrieval = items[items["task"] == "DocstringRetrieval"]
    means = 100 * retrieval.groupby("tau")["score"].mean()
    scores = results.scores.query("task == 'DocstringRetrieval'").set_index("tau")["score"]
    pd.testing.assert_series_equal(
        means.sort_index(), scores.sort_index(), check_names=False, rtol=1e-3
    )
    assert set(items.columns) >= {"model", "split", "subset", "id", "tokens", "characters", "gold"}


def test_scores_by_length_are_means_of_items(results: Any) -> None:
    lengths = results.by_length(resamples=0)
    of_queries = lengths.query("task == 'DocstringRetrieval' and by == 'query' and tau == '1'")
    items = results.items().query("task == 'DocstringRetrieval' and tau == '1'")
    for row in of_queries[of_queries["score"].notna()].itertuples():
        longest = np.inf if pd.isna(row.longest) else row.longest
        inside = items[items["tokens"].between(row.shortest, longest)]
        assert len(inside) == row.count
        assert row.score == pytest.approx(100 * inside["score"].mean())
    assert of_queries["count"].sum() == len(items)
    assert lengths["low"].isna().all()


def test_a_second_call_finds_what_is_finished(
    results: Any, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "Runner", lambda *_, **__: pytest.fail("a runner was made"))
    again = lcbench.evaluate(**{**asked, "tau": 0.9}, progress=Recorded())
    assert again.scores["tau"].unique().tolist() == [1.0, 0.9]
    there = results.scores.query("tau == '0.9'").reset_index(drop=True)
    here = again.scores.query("tau == 0.9").reset_index(drop=True)
    pd.testing.assert_frame_equal(here.drop(columns="tau"), there.drop(columns="tau"))


def test_a_folder_is_loaded_as_it_was_evaluated(results: Any, asked: dict[str, Any]) -> None:
    loaded = lcbench.load(asked["results_dir"])
    key = ["protocol", "task", "tau"]
    pd.testing.assert_series_equal(
        loaded.scores.set_index(["task", "tau"])["score"].sort_index(),
        results.scores.set_index(["task", "tau"])["score"].sort_index(),
    )
    assert not loaded.scores.duplicated(key).any()
    one = lcbench.load(asked["results_dir"], tasks="STS12")
    assert one.scores["task"].unique().tolist() == ["STS12"]


def test_a_notebook_shows_the_table(results: Any) -> None:
    shown = results._repr_html_()
    assert "<table" in shown
    assert f"{results.table1['Avg'].iloc[0]:.2f}" in shown
    assert repr(results).startswith("<lcbench.Results of")
    assert "6 scores" in repr(results)


def test_a_report_is_written_and_returned(
    results: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    said = Recorded()
    written = lcbench.report(
        asked["results_dir"], report_dir=tmp_path / "all", resamples=0, progress=said
    )
    assert said.said == [f"Written to {tmp_path / 'all'}"]
    assert written.page == tmp_path / "all" / "index.html"
    assert {"index.html", "table1.md", "report.json"} <= set(written.files)
    assert all((written.folder / name).is_file() for name in written.files)
    assert written.lines
    assert len(written.scores) == 6
    assert "<table" in written._repr_html_()
    own = results.report(tmp_path / "own", resamples=0, progress=said)
    pd.testing.assert_frame_equal(own.scores, results.scores)
    csv = pd.read_csv(own.folder / "tasks.csv")
    values = csv.set_index(["task", "policy"])["value"]
    shown = own.scores.assign(tau=own.scores["tau"].astype(str)).set_index(["task", "tau"])["score"]
    pd.testing.assert_series_equal(
        values.sort_index(), shown.sort_index(), check_names=False, check_index_type=False
    )


def test_lines_are_reported_and_can_be_silenced(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {**asked, "tasks": "STS12", "tau": 0.9}
    lcbench.evaluate(**{**few, "results_dir": tmp_path / "silent"}, progress=False)
    assert capsys.readouterr() == ("", "")
    lcbench.evaluate(**{**few, "results_dir": tmp_path / "told"})
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines() if "τ" in line] == ["1/2", "2/2"]
    assert told.err == ""


def test_what_the_libraries_were_told_is_taken_back(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    seen = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def carried(*_: Any, **__: Any) -> Any:
        cache.go_offline()
        seen.append(constants.HF_HUB_OFFLINE)
        raise LcbenchError("ended")

    monkeypatch.setattr(module, "carry_out", carried)
    with pytest.raises(LcbenchError, match="ended"):
        lcbench.evaluate(**asked)
    assert seen == [True]
    assert not constants.HF_HUB_OFFLINE
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"model": "minlm"}, r"model=minlm: there is no such config. Did you mean minilm"),
        ({"model": object()}, r"model=<object .*: a model is named, by a config"),
        ({"model": "no/such-model"}, r"no/such-model"),
        ({"tasks": "STS13x"}, r"tasks=STS13x: there is no such task"),
        ({"tasks": []}, r"tasks=\[\] is empty"),
        ({"tasks": 7}, r"tasks=7 is not a list of names"),
        ({"tau": -1}, r"tau=-1 is not a temperature"),
        ({"tau": {"querry": 0.5}}, r"querry"),
        ({"tau": "[0.8"}, r"tau=\[0.8 is not a temperature"),
        ({"tau": object()}, r"tau=<object .*: a object is no value of a key"),
        ({"window": 0}, r"model.window=0"),
        ({"limit": 1}, r"limit=1 is not a whole number of at least 2.* limit=100 is a quick look"),
        ({"limit": "all"}, r"limit=all"),
        ({"protocol": "papr"}, r"protocol=papr: there is no such config. Did you mean paper"),
        ({"protocol": 3}, r"protocol=3: there is no such config"),
        ({"progress": "yes"}, r"progress=yes is not True, False or an Observer"),
        ({"config_dir": 3}, r"config_dir=3 is not a folder"),
        ({"temperature": 0.8}, r"temperature is not a key. tau=0.8."),
        ({"widow": 8}, r"widow is not a key"),
        ({"revision": "x", "model": "minilm"}, r"model.revision=x: model=minilm is read from a"),
        ({"subsets": "xx"}, r"subsets=xx: STS12 has none of these"),
        ({"mirror": "/no/such/folder"}, r"mirror=/no/such/folder"),
        ({"manifest": "latest"}, r"manifest: for commands, not for Python"),
        ({"launch": "slurm"}, r"launch: for commands, not for Python"),
        ({"prompts": "x"}, r"protocol.prompts=x"),
        ({"name": "a/b"}, r"name=a/b cannot name a folder"),
        ({"label": " "}, r"model.label= +is not a text"),
        ({"failed": True}, r"failed is a key of python -m lcbench status, not of"),
        ({"config_dir": "/none"}, r"config_dir=/none is not a folder"),
        ({"sweep": "dmo"}, r"sweep=dmo: there is no such config. Did you mean demo"),
        ({"suite": ["docs", "paper"]}, r"suite= takes one config"),
        ({"model": ["minilm", "minlm"]}, r"model=minlm: there is no such config"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_with_the_message_of_the_command_line(
    asked: dict[str, Any],
    keywords: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        lcbench.evaluate(**{**asked, "tasks": ["STS12"], **keywords})
    assert isinstance(refused.value, ValueError)
    assert capsys.readouterr() == ("", "")


def test_what_is_missing_comes_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as missing:
        lcbench.evaluate("gist", "STS12", offline=True, results_dir=tmp_path)
    assert "avsolatorio/GIST-small-Embedding-v0" in str(missing.value)
    assert "python -m lcbench prefetch model=gist tasks=STS12 mirror=mirror" in str(missing.value)


def test_a_model_of_a_folder_of_configs_is_evaluated_reported_and_exported(
    asked: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    config = f"defaults: [custom]\nname: {make_model('bert')}\n"
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(config)
    with_own = {"config_dir": tmp_path / "conf"}
    few = {**asked, "model": "mine", "tasks": "STS12", "tau": 0.9, "results_dir": tmp_path / "runs"}
    found = lcbench.evaluate(**few, **with_own, progress=False)
    loaded = lcbench.load(tmp_path / "runs", models="mine", **with_own)
    pd.testing.assert_frame_equal(loaded.scores, found.scores)
    out = lcbench.export("mine", 0.5, tmp_path / "out", offline=True, **with_own)
    assert (out / "modules.json").is_file()
    with pytest.raises(RequestError) as missing:
        lcbench.evaluate("gist", "STS12", offline=True, results_dir=tmp_path, **with_own)
    assert f"prefetch --config-dir {tmp_path / 'conf'} model=gist" in str(missing.value)


def test_a_model_that_cannot_be_brought_to_a_temperature_is_refused(
    make_model: Callable[[str], Path], asked: dict[str, Any], tmp_path: Path
) -> None:
    keywords = {**asked, "model": make_model("canine"), "tasks": "STS12", "results_dir": tmp_path}
    with pytest.raises(RequestError, match=r"was refused: τ = 0\.9: CanineModel"):
        lcbench.evaluate(**keywords, progress=Recorded())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: lcbench.load(folder / "none"), "has no results"),
        (lambda folder: lcbench.report(folder / "none"), "has no results"),
        (lambda folder: lcbench.report(folder, resamples=3), "resamples=3 is too few"),
        (lambda folder: lcbench.report(folder, model="x"), "model is"),
        (lambda folder: lcbench.report(folder, manifest="/none"), "manifest=/none"),
        (
            lambda folder: lcbench.report(folder / "other", manifest=latest(folder)),
            r"results_dir=.*other: manifest=.* belongs to the results folder that contains it",
        ),
        (lambda folder: lcbench.report(folder, show="all"), r"show: .* \.tables has every table"),
        (lambda folder: lcbench.report(folder, progress=1), "progress=1 is not True, False or an"),
        (lambda folder: lcbench.load(folder, also=folder / "none"), "none has no results"),
        (lambda folder: lcbench.load(folder, also=3), "also=3 has no results"),
        (lambda folder: lcbench.load(folder, models=3), "models=3 is not a list"),
        (lambda folder: lcbench.load(folder, config_dir=3), "config_dir=3 is not a folder"),
        (lambda folder: lcbench.load(folder).by_length(resamples=3), "resamples=3 is too few"),
        (lambda folder: lcbench.load(folder).by_length(seed=-1), "seed=-1 is not"),
        (lambda folder: lcbench.load(folder).report(resamples="x"), "resamples=x is not"),
        (lambda folder: lcbench.load(folder).report(seed=0.5), "seed=0.5 is not"),
        (lambda folder: lcbench.load(folder).report([]), r"report_dir=\[\] is not a path"),
        (lambda folder: lcbench.load(folder).report("/proc/x"), "report_dir=/proc/x cannot be"),
        (lambda _: lcbench.inject("minilm", 0.8), "str is no loaded model: .* lcbench.evaluate"),
        (lambda _: lcbench.inject(None, [0.9, 0.8]), r"tau=\[0.9, 0.8\]: .* lcbench.evaluate"),
        (
            lambda folder: lcbench.load(folder, tasks="STS13"),
            "has no results of these tasks, only of DocstringRetrieval, STS12;",
        ),
        (lambda folder: lcbench.load(folder, models="e5"), "models=dwzhu/e5-base-4k: there are no"),
        (lambda folder: lcbench.export("minilm", 1, folder / "x"), "τ = 1 does not change"),
        (lambda folder: lcbench.export("minilm", 0.8, folder), "already exists"),
        (lambda folder: lcbench.export("minilm", [0.8], folder / "x"), r"tau=\[0.8\]"),
        (lambda folder: lcbench.export("minilm", None, folder / "x"), "tau=None: export needs"),
        (lambda folder: lcbench.export(3, 0.8, folder / "x"), "model=3: a model is named"),
        (lambda _: lcbench.export("minilm", 0.8, None), "out has no value"),
        (lambda _: lcbench.collapse(texts="A text."), "texts= is not a list of texts"),
        (lambda _: lcbench.collapse(texts=[None]), "texts= is not a list of texts"),
        (lambda _: lcbench.collapse(texts=3), "texts= is not a list of texts"),
        (
            lambda _: lcbench.collapse(object(), texts=["A text."]),
            "object is not a loaded",
        ),
        (lambda _: lcbench.collapse(object()), "a loaded model is measured on texts"),
        (lambda _: lcbench.collapse(results_dir="/proc/x"), "results_dir=/proc/x cannot be"),
        (lambda _: lcbench.collapse(tau="x"), "tau=x is not a temperature"),
        (lambda _: lcbench.collapse(progress="yes"), "progress=yes is not"),
        (lambda folder: lcbench.load(folder, config_dir="/none"), "config_dir=/none is not a"),
        (lambda folder: lcbench.report(folder, config_dir="/none"), "config_dir=/none is not a"),
        (lambda folder: lcbench.export("x", 1, "y", config_dir="/none"), "config_dir=/none is not"),
    ],
)
def test_the_other_functions_refuse_alike(
    results: Any,
    asked: dict[str, Any],
    call: Callable[[Path], Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RequestError, match=message):
        call(asked["results_dir"])
    assert capsys.readouterr() == ("", "")


def test_a_model_is_exported(make_model: Callable[[str], Path], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = lcbench.export(make_model("bert"), 0.5, tmp_path / "out", offline=True)
    assert folder == tmp_path / "out"
    texts = ["a few words about attention", "other words"]
    original = SentenceTransformer(str(make_model("bert")), device="cpu")
    with lcbench.inject(original, 0.5):
        expected = original.encode(texts)
    exported = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(exported.encode(texts), expected, rtol=1e-4, atol=1e-5)


def test_a_disk_that_is_full_is_one_message_and_leaves_no_model(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError, match=r"out=.*could not be written: .*File too large"):
            lcbench.export(make_model("bert"), 0.5, tmp_path / "out", offline=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_plain_script_scores_in_processes_of_its_own(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    """Nothing guards the call: a process that ran the script again would fail, or never end."""
    keywords = {
        **{key: asked[key] for key in ("unverified_data", "offline", "store")},
        **{key: str(asked[key]) for key in ("model", "mirror")},
        "tasks": "STS12",
        "engine.scoring": 1,
        "results_dir": str(tmp_path / "runs"),
    }
    script = tmp_path / "script.py"
    script.write_text(
        "import lcbench\n"
        "print('begins')\n"
        f"results = lcbench.evaluate(**{keywords!r}, tau=0.9, progress=False)\n"
        "print(len(results.scores), results.failed)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.stdout, done.stderr) == ("begins\n2 {}\n", "")


def test_corrections_have_a_column_of_their_own(asked: dict[str, Any], results: Any) -> None:
    few = {**asked, "tasks": "STS12", "tau": [1.0, 0.9], "correct": [None, "centre"]}
    found = lcbench.evaluate(**few, progress=Recorded())
    rows = found.scores[["tau", "correct", "score"]]
    assert list(zip(rows["tau"], rows["correct"], strict=True)) == [
        *((1.0, ""), (0.9, ""), (1.0, "centre"), (0.9, "centre")),
    ]
    assert rows["score"].nunique() == 4
    assert found.table1.index.names[-2:] == ["tau", "correct"]
    assert set(found.items()["correct"]) == {"", "centre"}
    # Those without a correction are as they were.
    before = results.scores.query("task == 'STS12'").set_index("tau")["score"]
    assert rows["score"].tolist()[:2] == [before["1"], before["0.9"]]
