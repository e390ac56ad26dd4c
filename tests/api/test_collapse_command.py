"""Collapse as a function and as a command: measured once, resumed, reported, refused in words."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collapse_texts import texts
from observers import Recorded

import lcbench
from lcbench.api import collapses as module
from lcbench.api.explain import prefetch_command
from lcbench.api.keywords import words_of
from lcbench.cli import app
from lcbench.errors import LcbenchError, RequestError
from lcbench.measures import files
from lcbench.repair.repair import NO_REPAIR
from lcbench.run import collapse as run
from lcbench.run.reader import counter_of, reader_of, subject_of
from lcbench.system.observer import Observer

SMALL: dict[str, Any] = {
    "passages": 30,
    "sentences": [2],
    "whole_texts": 60,
    "bins": 2,
    "queries": 40,
    "corpus": 60,
    "chunk_tokens": 16,
    "resamples": 1_000,
    "docs": {"documents": 600},
    "store": "none",
    "offline": True,
}


@pytest.fixture(scope="module")
def asked(
    make_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("collapse")
    return {"model": make_model("bert"), "tau": 0.5, "results_dir": folder / "runs", **SMALL}


@pytest.fixture(scope="module")
def measured(asked: dict[str, Any]) -> module.Collapses:
    return lcbench.collapse(**asked, progress=Recorded())


def test_the_baseline_and_the_temperature_are_measured(measured: module.Collapses) -> None:
    assert [one.policy for one in measured.measurements] == ["1", "0.5"]
    baseline, repaired = measured.measurements
    assert baseline.collapse.change is None
    assert repaired.collapse.change is not None
    assert baseline.texts == repaired.texts
    assert repaired.record["proof"]["layers"]
    for one in measured.measurements:
        crowding = one.collapse.crowding
        assert crowding is not None
        assert crowding.counts == (1, 2)
        assert crowding.texts == 30
        # Nearly all docstrings are longer than the window of 48 tokens.
        assert one.collapse.by_length is None
        assert one.collapse.notes[0].startswith("whole texts are not compared by length")
    single = [one.collapse.crowding.verdict.single.value for one in measured.measurements]  # type: ignore[union-attr]
    difference = repaired.collapse.change.single.value
    assert difference == pytest.approx(single[1] - single[0], abs=1e-9)
    # The temperature was applied.
    assert abs(difference) > 1e-6


def test_its_cosines_are_those_of_the_model_itself(
    asked: dict[str, Any], measured: module.Collapses
) -> None:
    """Recomputed with sentence-transformers and numpy alone."""
    from sentence_transformers import SentenceTransformer

    from lcbench.measures.collapse import prepare
    from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes, select

    model = SentenceTransformer(str(asked["model"]), device="cpu")
    one = measured.measurements[0]
    sizes = DocsSizes(600, 12, 260, 10, 0.7, SyntheticSizes(None, 24))
    bodies = [f"{doc.body}" for doc in select(sizes).documents]
    assert one.window is not None
    prepared = prepare(bodies, counter_of(model), one.window - 2, one.options)
    rows = model.encode(list(prepared.passages.joined["sequential"][2]))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    expected = (cosines.sum() - np.trace(cosines)) / (30 * 29)
    assert one.collapse.crowding is not None
    assert one.collapse.crowding.verdict.joined.value == pytest.approx(expected, abs=1e-5)


def test_its_retrieval_is_that_of_the_model_itself(
    asked: dict[str, Any], measured: module.Collapses
) -> None:
    """Recomputed with sentence-transformers and numpy alone."""
    from sentence_transformers import SentenceTransformer

    from lcbench.hub.judgments import Judgments
    from lcbench.measures.queries import choose
    from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes, select

    one = measured.measurements[0]
    found = one.collapse.retrieval
    assert found is not None
    assert one.window is not None
    model = SentenceTransformer(str(asked["model"]), device="cpu")
    docs = select(DocsSizes(600, 12, 260, 10, 0.7, SyntheticSizes(None, 24))).documents
    numbers = range(len(docs))
    judged = Judgments(
        tuple(doc.summary for doc in docs),
        tuple(doc.body for doc in docs),
        (0,) * len(docs),
        tuple((number,) for number in numbers),
        (None,) * len(docs),
    )
    chosen = choose(judged, counter_of(model), one.window - 2, 40, 60, 16, 0)

    def rows(texts: Any) -> Any:
        embeddings = model.encode(list(texts))
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    queries, documents = rows(chosen.queries), rows(chosen.documents)
    scores, ranks, dilution = [], [], []
    for query, wanted in zip(queries, chosen.relevant.tolist(), strict=True):
        cosines = documents @ query
        own = cosines[wanted]
        scores.append(own)
        ranks.append(1 / (1 + (cosines > own).sum()))
        dilution.append((rows(chosen.chunks[wanted]) @ query).max() - own)
    assert (found.queries, found.documents) == (40, 60)
    assert found.overall.score.value == pytest.approx(np.mean(scores), abs=1e-5)
    assert found.overall.alignment.value == pytest.approx(2 - 2 * np.mean(scores), abs=1e-5)
    assert found.overall.reciprocal_rank.value == pytest.approx(np.mean(ranks), abs=1e-3)
    assert found.overall.dilution.value == pytest.approx(np.mean(dilution), abs=1e-5)


def test_of_a_task_without_queries_retrieval_is_not_measured_and_it_is_said_once(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    task = {"tasks": "DocstringLibraryClassification", "results_dir": tmp_path}
    found = lcbench.collapse(**{**asked, **task}, progress=False)
    assert [one.collapse.retrieval for one in found.measurements] == [None, None]
    assert "retrieval" not in found.tables
    lines = [line for line in found.headlines if "retrieval" in line]
    assert lines == [
        "DocstringLibraryClassification: retrieval is not measured: it has no queries with "
        "relevant documents."
    ]


def test_a_second_call_reads_what_is_there(
    asked: dict[str, Any], measured: module.Collapses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(run, "load_for", refused)
    again = lcbench.collapse(**asked, progress=False)
    assert again.measurements == measured.measurements
    with pytest.raises(LcbenchError, match="a model was loaded"):
        lcbench.collapse(**{**asked, "tau": 1.0, "seed": 1}, progress=False)


def test_files_are_where_they_are_documented(
    asked: dict[str, Any], measured: module.Collapses
) -> None:
    found = sorted(asked["results_dir"].glob("*/collapse/*/*/*/DocstringRetrieval-*.json"))
    assert [path.parent.name for path in found] == ["baseline", "tau_0.5"]
    assert files.read(found[0], files.Measurement) == measured.measurements[0]
    assert files.read(found[1], files.Measurement) == measured.measurements[1]
    content = json.loads(found[1].read_text(encoding="utf-8"))
    assert content["policy"] == "0.5"
    assert content["record"]["versions"]["torch"]
    # Nothing of an attempt is left.
    assert [path.name for path in found[0].parent.iterdir()] == [found[0].name]


def test_a_damaged_file_is_measured_again(
    asked: dict[str, Any], measured: module.Collapses, tmp_path: Path
) -> None:
    path = next(asked["results_dir"].glob("*/collapse/*/*/baseline/*.json"))
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    try:
        assert files.read(path, files.Measurement) is None
        again = lcbench.collapse(**{**asked, "tau": 1.0}, progress=False)
        assert again.measurements[0].collapse == measured.measurements[0].collapse
    finally:
        path.write_bytes(whole)


def test_a_report_has_tables_figures_and_a_page(measured: module.Collapses, tmp_path: Path) -> None:
    page = measured.report(tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    assert "Does the model collapse, and is it length?" in text
    names = {
        str(path.relative_to(page.parent)) for path in page.parent.rglob("*") if path.is_file()
    }
    tables = (
        *("collapse", "changes", "sentences", "weights", "shift", "causes"),
        *("retrieval", "search", "moderation"),
    )
    assert names == {
        *("collapse.json", "collapse.md", "index.html"),
        *(f"tables/{name}.{kind}" for name in tables for kind in ("csv", "tex")),
        *(f"figures/sentences.{kind}" for kind in ("csv", "png", "svg")),
    }
    described = json.loads((page.parent / "collapse.json").read_text(encoding="utf-8"))
    assert [one["answer"] for one in described["measurements"]] == [
        one.collapse.crowding.verdict.collapses  # type: ignore[union-attr]
        for one in measured.measurements
    ]
    # One a condition.
    assert len(described["figures"]["views"]) == 3


def test_the_report_has_what_was_measured_of_the_same_texts_before(
    asked: dict[str, Any],
    measured: module.Collapses,
    make_model: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of other models and temperatures, with equal options; each command adds its own."""
    runs = tmp_path / "runs"
    shutil.copytree(asked["results_dir"], runs)
    other = {**asked, "results_dir": runs, "model": make_model("mpnet"), "tau": 1.0}
    found = lcbench.collapse(**other, progress=False)
    assert found.others is not None
    assert [(one.model, one.policy) for one in found.others.measurements] == [
        (one.model, one.policy) for one in measured.measurements
    ]
    # Other options are other texts.
    apart = lcbench.collapse(**{**other, "seed": 1}, progress=False)
    assert apart.others is None
    monkeypatch.setattr(run, "load_for", None)
    words = words_of("collapse", {**other, "report_dir": tmp_path / "one"})
    assert app.run(["collapse", *words]) == 0
    assert "report also shows 2 earlier measurements" in capsys.readouterr().out
    rows = json.loads((tmp_path / "one/collapse.json").read_text(encoding="utf-8"))["measurements"]
    # Both folders are called `model`: their revisions tell them apart.
    assert len({(row["label"], row["policy"]) for row in rows}) == len(rows) == 3
    assert {row["label"] for row in rows} == {
        f"model ({one.revision[7:14]})" for one in (*found.measurements, *measured.measurements)
    }

    # Of a folder without scores `lcbench report` shows the measurements, and those made last.
    folder = [f"results_dir={runs}", f"report_dir={tmp_path / 'all'}"]
    path = next(runs.glob("*/collapse/*/*/tau_0.5/*.json"))
    path.touch()
    assert app.run(["report", *folder]) == 0
    printed = capsys.readouterr()
    assert f"Length collapse: {tmp_path / 'all/collapse/index.html'}" in printed.out
    assert "1 measurement of other options, protocols or revisions left out" in printed.err
    page = json.loads((tmp_path / "all/collapse/collapse.json").read_text(encoding="utf-8"))
    assert len(page["measurements"]) == 3
    shown = lcbench.report(runs, report_dir=tmp_path / "python", progress=False)
    assert shown.page == tmp_path / "python/collapse/index.html"
    assert shown.collapse is not None
    assert len(shown.collapse.measurements) == 3
    assert shown.lines == shown.collapse.headlines
    assert "collapse" in shown.tables
    empty = f"results_dir={tmp_path / 'nothing'}"
    assert app.run(["report", empty]) == 2
    assert "has no results" in capsys.readouterr().err


def test_tables_are_data_frames_with_exact_values(measured: module.Collapses) -> None:
    frame = measured.tables["collapse"]
    verdict = measured.measurements[1].collapse.crowding.verdict  # type: ignore[union-attr]
    assert list(frame["Repair"]) == ["τ = 1", "τ = 0.5"]
    assert frame["Length itself"][1] == verdict.length.value
    assert frame["Length itself low"][1] == verdict.length.low
    assert set(measured.tables["sentences"]["Sentences are"]) == {
        *("repeated", "sequential", "random")
    }
    assert "Collapses:" in repr(measured)
    assert "τ = 0.5 against the baseline" in repr(measured)


def test_own_texts_of_a_loaded_model_or_a_named_one(asked: dict[str, Any]) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [
        " ".join(f"Sentence {i} of text {k} is here." for i in range(3 + k % 5)) for k in range(70)
    ]
    keys = {"tau": 0.5, "passages": 30, "sentences": [2], "bins": 2, "whole_texts": 70}
    model = SentenceTransformer(str(asked["model"]), device="cpu")
    before = model.encode(texts[:3])
    found = lcbench.collapse(model, texts=texts, progress=False, **keys)
    named = lcbench.collapse(asked["model"], texts=texts, progress=False, **keys)
    assert [one.policy for one in found.measurements] == ["1", "0.5"]
    for one, other in zip(found.measurements, named.measurements, strict=True):
        assert one.task == "70 texts"
        assert one.collapse.crowding is not None
        assert other.collapse.crowding is not None
        assert one.collapse.crowding.verdict.joined.value == pytest.approx(
            other.collapse.crowding.verdict.joined.value, abs=1e-6
        )
    assert (model.encode(texts[:3]) == before).all()
    with pytest.raises(RequestError, match=r"a loaded model is measured on texts=\[…\]"):
        lcbench.collapse(model)


def test_own_texts_are_read_with_the_models_prompt_for_documents_as_a_tasks_are(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from lcbench.measures.collapse import prepare

    folder = tmp_path / "prompted"
    shutil.copytree(asked["model"], folder)
    path = folder / "config_sentence_transformers.json"
    config = {**json.loads(path.read_text()), "prompts": {"query": "find: ", "document": "read: "}}
    path.write_text(json.dumps(config))
    keys = {"tau": 1, "passages": 30, "sentences": [2], "bins": 2, "whole_texts": 60}
    read = texts(60)
    model = SentenceTransformer(str(folder), device="cpu")
    (one,) = lcbench.collapse(model, texts=read, progress=False, **keys).measurements
    (named,) = lcbench.collapse(folder, texts=read, progress=False, **keys).measurements
    (without,) = lcbench.collapse(
        folder, texts=read, protocol="paper", progress=False, **keys
    ).measurements
    # [CLS], "read", ":" and [SEP].
    chosen = prepare(read, counter_of(model), 48 - 4, one.options)
    rows = model.encode_document(list(chosen.passages.joined["sequential"][2]))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = ((rows @ rows.T).sum() - 30) / (30 * 29)
    values = [each.collapse.crowding.verdict.joined.value for each in (one, named, without)]
    assert values[:2] == pytest.approx([expected] * 2, abs=1e-5)
    assert values[2] != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": ["minilm", "bge"]}, "one model: call this once for each"),
        ({"tasks": "DocstringRetrieval"}, "texts= and tasks=: give one of them"),
        ({"protocol": "leaderboard"}, r"mteb's prompts are of tasks"),
        ({"config_dir": "not/there"}, "config_dir=not/there is not a folder"),
    ],
)
def test_what_own_texts_do_not_go_with(
    asked: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        lcbench.collapse(**{"model": asked["model"], **keys}, texts=["a", "b"], progress=False)


def test_a_loaded_model_takes_no_keys_of_a_models_config(asked: dict[str, Any]) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(asked["model"]), device="cpu")
    with pytest.raises(RequestError, match=r"model\.window=32: the model is loaded already"):
        lcbench.collapse(model, texts=["a", "b"], window=32, progress=False)


def test_a_model_at_a_temperature_is_no_baseline(asked: dict[str, Any]) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(asked["model"]), device="cpu")
    keys = {"tau": 1, "passages": 30, "sentences": [2], "bins": 2, "whole_texts": 60}
    with lcbench.inject(model, 0.5), pytest.raises(RequestError, match="already runs at a temp"):
        lcbench.collapse(model, texts=texts(60), progress=False, **keys)
    # Texts may come one by one.
    (one,) = lcbench.collapse(model, texts=iter(texts(60)), progress=False, **keys).measurements
    assert one.task == "60 texts"


def test_own_texts_show_no_progress_bar_of_a_library(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    import transformers

    # As in a fresh process; other tests may have turned them off.
    transformers.logging.enable_progress_bar()
    texts = ["One sentence. Another one."] * 2
    found = lcbench.collapse(asked["model"], texts=texts, measures=[], figures="12", progress=False)
    assert [one.number for one in found.figures] == ["12"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "raised"),
    [(RuntimeError("broken"), LcbenchError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_claim_is_released_where_measuring_fails(
    asked: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    """At once: the process may go on with other models for hours."""
    held: list[list[str]] = []
    close = run.Claims.close

    def claimed() -> list[str]:
        return [name for *_, names in os.walk(tmp_path) for name in names if ".attempt-" in name]

    def closed(claims: run.Claims) -> None:
        held.append(claimed())
        close(claims)

    def broken(*_: object) -> None:
        held.append(claimed())
        raise error

    monkeypatch.setattr(run.Claims, "close", closed)
    monkeypatch.setattr(run.EmbeddingsReader, "measure", broken)
    with pytest.raises(raised):
        lcbench.collapse(**{**asked, "tau": 1.0, "results_dir": tmp_path}, progress=False)
    while_measuring, at_the_end = held
    assert len(while_measuring) == 1
    assert at_the_end == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"passages": 29}, "passages=29"),
        ({"bins": 1}, "bins=1"),
        ({"sentences": [4, 2]}, "ascending order"),
        ({"sentences": [1]}, "above 1"),
        ({"whole_texts": 10}, "whole_texts=10"),
        ({"queries": 29}, "queries=29"),
        ({"corpus": 29}, "corpus=29"),
        ({"chunk_tokens": 7}, "chunk_tokens=7"),
        ({"resamples": 10}, "resamples=10"),
        ({"limit": 10}, "passages= and whole_texts="),
        ({"engine.devices": 2}, r"engine\.devices=2: collapse runs on one device"),
        ({"element": 0}, "element=0 needs its sweep"),
        ({"plan": True, "manifest": "latest"}, "is already planned"),
        ({"fail_if": "always"}, "fail_if=always"),
        ({"embeddings": "E.npy"}, "needs lengths=PATH"),
        ({"embeddings": "none.npy", "lengths": "none.npy"}, r"embeddings=none\.npy cannot be read"),
        ({"sentences": [64]}, "passages of 64 sentences fit into"),
        ({"tasks": "STSBenchmerk"}, "STSBenchmark"),
    ],
)
def test_what_cannot_be_asked_for(
    asked: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(LcbenchError, match=message):
        lcbench.collapse(**{**asked, **keys}, progress=False)


def test_a_matrix(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(10, 400, 300)
    rows = random.standard_normal((300, 32)) / 6
    rows[:, 0] += lengths / 150
    np.save(tmp_path / "E.npy", rows)
    np.save(tmp_path / "L.npy", lengths)
    where = {"embeddings": tmp_path / "E.npy", "lengths": tmp_path / "L.npy"}
    found = lcbench.collapse(**where, bins=5, progress=False)
    assert found.collapses
    assert list(found.tables["lengths"]["Repair"]) == ["as given"] * 5
    page = found.report(tmp_path / "report")
    assert (page.parent / "figures/lengths.png").stat().st_size > 5_000
    assert "tables/space.csv" in {
        str(path.relative_to(page.parent)) for path in page.parent.rglob("*.csv")
    }
    words = words_of("collapse", {**where, "bins": 5, "report_dir": tmp_path / "report"})
    assert app.run(["collapse", *words, "fail_if=collapse"]) == 1
    np.save(tmp_path / "O.npy", np.array([{}], dtype=object))
    with pytest.raises(RequestError, match="cannot be read"):
        lcbench.collapse(**{**where, "lengths": tmp_path / "O.npy"}, progress=False)


def test_the_command_that_fetches_has_no_keys_of_collapse_alone() -> None:
    words = ["model=bge", "passages=40", "sentences=[2,4]", "tau=0.8", "docs.documents=500"]
    assert prefetch_command(words) == (
        "python -m lcbench prefetch model=bge tau=0.8 docs.documents=500 mirror=mirror"
    )


@pytest.mark.parametrize(("pooling", "weighted"), [("mean", False), ("lasttoken", True)])
def test_a_model_that_does_not_pool_by_the_mean_is_said_to_weight_sentences(
    make_model: Callable[[str], Path], pooling: Any, weighted: bool
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    model = SentenceTransformer(str(make_model("qwen3")), device="cpu")
    model[1] = Pooling(32, pooling)
    keys = {**SMALL, "sentences": [2], "whole_texts": 60}
    for name in ("docs", "store", "queries", "corpus", "chunk_tokens", "offline"):
        keys.pop(name)
    found = lcbench.collapse(model, texts=texts(60), tau=1, progress=False, **keys)
    (one,) = found.measurements
    assert one.collapse.crowding is not None
    verdict = one.collapse.crowding.verdict
    assert (verdict.weighted is not None) == weighted
    assert one.collapse.pools_by_mean != weighted
    assert ("it does not pool by the mean" in found.headlines[0]) == weighted
    table = found.tables["weights"]
    assert (table["Effective sentences"] <= 2).all()
    assert np.allclose(table["First sentence"] + table["Last sentence"], 1)
    (row,) = table[table["Sentences are"] == "sequential"].to_dict("records")
    if verdict.weighted is not None:
        assert row["Effective sentences"] == pytest.approx(verdict.weighted.effective)
        assert row["Explained"] == pytest.approx(verdict.weighted.explained)
        assert 1 <= verdict.weighted.effective <= 2
    # As figures are told.
    with reader_of(model, "tiny", Observer()) as reader:
        assert subject_of(reader, [NO_REPAIR], "1c").by_mean != weighted
