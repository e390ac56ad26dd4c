"""`lcbench.tune` recommends a repair: from texts to a model, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from observers import Recorded
from sentence_transformers import SentenceTransformer

import lcbench
from lcbench.api.recommend import Recommended
from lcbench.cli import app
from lcbench.errors import LcbenchError, RequestError

QUIET: dict[str, Any] = {"offline": True, "progress": False, "store": "none", "engine.scoring": 0}
REPAIRS = [{"tau": 0.9}, {"tau": 0.5}, {"gain": {"ffn": 0.5}}]


def write_texts(path: Path, count: int, first: int = 0) -> Path:
    """Write texts of two sentences, the first of which is the query of a task of such texts."""
    random = np.random.default_rng(first)
    words = ["array", "matrix", "vector", "plot", "index", "frame", "series", "solver", "axis"]
    rows = []
    for number in range(first, first + count):
        rest = " ".join(random.choice(words, 12))
        about = " ".join(random.choice(words, 3))
        rows.append({"text": f"This is about {about} of number {number}. It has {rest}."})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts") / "mine.jsonl", 60)


@pytest.fixture(scope="module")
def found(
    make_model: Any, texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recommended, Path]:
    runs = tmp_path_factory.mktemp("runs")
    keys = {"repairs": REPAIRS, "results_dir": runs}
    return lcbench.tune(make_model("bert"), tasks=texts, **keys, **QUIET), runs


def test_it_says_what_to_ship(found: tuple[Recommended, Path]) -> None:
    tuned, runs = found
    content = json.loads(tuned.path.read_text(encoding="utf-8"))
    assert tuned.path.is_relative_to(runs)
    assert content == {**tuned.content, "lcbench": lcbench.__version__}
    assert tuned.repair == content["repair"]
    assert tuned.lines == tuple(content["text"])
    assert ": ship " in tuned.lines[0]
    assert ("as it is" in tuned.lines[0]) == (tuned.repair is None)
    assert [one["repair"] for one in content["tried"]] == ["0.9", "0.5", "gain=ffn=0.5"]
    assert sum(one["folds"] for one in content["tried"]) + content["folds_of_baseline"] == 10
    assert (content["across"], content["units"]) == ("texts", 60)
    value, low, high = tuned.expected
    assert low <= value <= high
    assert content["expected"] == {"value": value, "low": low, "high": high}


def test_gains_are_those_of_the_report(found: tuple[Recommended, Path]) -> None:
    tuned, runs = found
    scores = lcbench.load(runs).scores
    tried = {one["repair"]: one["gain"]["value"] for one in tuned.content["tried"]}
    for tau in (0.9, 0.5):
        (reported,) = scores.query(f"tau == {tau} and gain == ''")["improvement"]
        assert tried[str(tau)] == pytest.approx(reported, rel=5e-3)


def test_a_second_call_finds_all_cells(
    found: tuple[Recommended, Path], make_model: Any, texts: Path
) -> None:
    tuned, runs = found
    progress = Recorded()
    keys = {"repairs": REPAIRS, "results_dir": runs, **QUIET, "progress": progress}
    again = lcbench.tune(make_model("bert"), tasks=texts, **keys)
    assert again.content == tuned.content
    assert "loading" not in progress.text


def test_the_command_says_the_same_and_what_was_tried(
    found: tuple[Recommended, Path],
    make_model: Any,
    texts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tuned, runs = found
    words = [f"model={make_model('bert')}", f"tasks={texts}", f"results_dir={runs}", "store=none"]
    words += ["repairs=[{tau: 0.9},{tau: 0.5},{gain: {ffn: 0.5}}]", "offline=true"]
    assert app.run(["tune", *words, "engine.scoring=0"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert " ".join(tuned.lines) in said
    assert said.index(tuned.lines[0]) < said.index("Repairs tried") < said.index("Written to ")
    assert "τ = 0.5" in said.partition("Repairs tried")[2]


def test_a_model_is_written_if_a_repair_is_recommended(
    tmp_path: Path, make_model: Any, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The world of these texts has no right repair, so one is made out to be."""
    from lcbench.reporting import advice

    real = advice.recommend

    def recommend(parts: Any, **keys: Any) -> Any:
        best = [0.0] * parts[0].sums.shape[1]
        best[1] = 10.0
        parts = [
            type(one)(one.weight, one.units, one.sizes, one.sizes[:, None] * np.array([best]))
            for one in parts
        ]
        return real(parts, **keys)

    monkeypatch.setattr(advice, "recommend", recommend)
    test = write_texts(tmp_path / "test.jsonl", 40, first=1000)
    out = tmp_path / "written"
    keys: dict[str, Any] = {"repairs": REPAIRS[:2], "results_dir": tmp_path / "runs", **QUIET}
    tuned = lcbench.tune(make_model("bert"), out, tasks=texts, test=test, **keys)
    assert tuned.repair == "0.5"
    assert tuned.out == out
    assert "ship τ = 0.5. To expect on other texts like these: Avg +10.00 % (95 %" in str(tuned)
    assert "at no cost: it becomes part of the model" in str(tuned)
    assert f"{out}: written; its embeddings differ by " in tuned.lines[-1]
    assert "own-test-retrieval, which had no part in the choice: " in tuned.lines[-2]
    assert tuned.content["test"]["tasks"] == ["own-test-retrieval"]
    model = SentenceTransformer(str(make_model("bert")), device="cpu")
    with lcbench.inject(model, 0.5):
        expected = model.encode(["A text to embed."])
    written = SentenceTransformer(str(out), device="cpu").encode(["A text to embed."])
    assert np.abs(written - expected).max() < 1e-5


def test_no_model_is_written_if_none_is_recommended(
    found: tuple[Recommended, Path], tmp_path: Path, make_model: Any, texts: Path
) -> None:
    tuned, runs = found
    if tuned.repair is not None:
        pytest.skip("a repair is recommended here")
    keys = {"repairs": REPAIRS, "results_dir": runs, **QUIET}
    again = lcbench.tune(make_model("bert"), tmp_path / "none", tasks=texts, **keys)
    assert again.out is None
    assert "none is not written: it would be the model as it is." in again.lines[-1]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tau": 0.9, "correct": "centre"}, "centre could be recommended and not be written: "),
        ({"tau": {"length": "logn"}}, "a length-dependent temperature cannot be stored in weights"),
        ({"tau": [0.9, {"length": {"infoscale": 128}}]}, "a length-dependent temperature cannot"),
        ({"attend": "calibrate"}, "could be recommended and not be written: attend="),
        ({"chunks": "mean"}, "could be recommended and not be written: chunks="),
        ({"tau": 0.9, "out": "there"}, "out=there already exists; choose another folder"),
        ({"out": "new.json"}, "a model is written into a folder.*method=entropy"),
        ({"texts": 30}, "texts=30 is not a key of method=choose"),
        ({"device": "cpu"}, "device=cpu is not a key of method=choose: engine.device="),
        ({"track": "wandb"}, "track=wandb: a recommendation is not tracked. Run the same"),
        ({"models": ["minilm"]}, r"models=\[minilm\]: a repair is recommended for one"),
        ({"across": "queries"}, "across=queries is not one of: auto, texts, tasks"),
        ({"resamples": 0}, "resamples=0: a recommendation needs intervals"),
        ({"method": "entropy", "tau": 0.9}, "tau=0.9 is not a key of method=entropy"),
        ({"method": "chose"}, "method=chose is not one of: choose, entropy, search. Did you mean"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_any_work(
    tmp_path: Path,
    make_model: Any,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    quiet = {key: value for key, value in QUIET.items() if "method" not in keys or "." not in key}
    quiet = {key: value for key, value in quiet.items() if "method" not in keys or key != "store"}
    with pytest.raises(RequestError, match=message):
        lcbench.tune(make_model("bert"), **{"out": "new", **quiet, **keys})
    assert not Path("results").exists()


def test_what_the_architecture_cannot_store_is_refused_before_any_work(
    tmp_path: Path, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers of T5 share one position bias."""
    by_layer = {"tau": {"layers": {1: 0.8}}}
    keys = {"out": tmp_path / "new", "results_dir": tmp_path / "runs", **QUIET}
    few = write_texts(tmp_path / "few.jsonl", 10)
    with pytest.raises(RequestError, match=r"could be recommended and not be written: .* one posi"):
        lcbench.tune(make_model("t5"), repairs=[by_layer], tasks=few, **keys)
    # It goes on as far as it can with those that are left.
    monkeypatch.setattr("lcbench.settings.tune.REPAIRS", ({"tau": 0.9}, by_layer))
    for more, left_out in (({}, 1), ({"tau_bias": "kept"}, 0)):
        progress = Recorded()
        with pytest.raises(RequestError, match="30 independent texts or queries are needed"):
            lcbench.tune(make_model("t5"), tasks=few, **{**keys, **more, "progress": progress})
        warnings = [one for one in progress.warnings if "could not be written: " in one]
        assert len(warnings) == left_out
    assert not (tmp_path / "runs").exists()


def test_too_few_texts_are_refused_with_how_many_are_needed(
    tmp_path: Path, make_model: Any
) -> None:
    path = tmp_path / "one"
    (path / "qrels").mkdir(parents=True)
    documents = [{"_id": str(i), "text": f"Text {i} is about a matrix."} for i in range(40)]
    lines = "".join(f"{json.dumps(one)}\n" for one in documents)
    (path / "corpus.jsonl").write_text(lines, encoding="utf-8")
    query = json.dumps({"_id": "q", "text": "What is a matrix?"})
    (path / "queries.jsonl").write_text(query, encoding="utf-8")
    judged = "query-id\tcorpus-id\tscore\nq\t7\t1\n"
    (path / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    keys = {"tau": 0.9, "results_dir": tmp_path / "runs", **QUIET}
    with pytest.raises(RequestError, match=r"30 independent .* are needed .* and there is 1\.$"):
        lcbench.tune(make_model("bert"), tasks=path, **keys)
    with pytest.raises(RequestError, match=r"8 tasks that share no texts are needed .* there is 1"):
        lcbench.tune(
            make_model("bert"),
            tasks=write_texts(tmp_path / "more.jsonl", 40),
            across="tasks",
            **keys,
        )
    assert not (tmp_path / "runs").exists()


def write_folder(folder: Path, documents: int, queries: int, name: str = "") -> Path:
    """Write a retrieval task in BEIR's layout; query i asks for document i, modulo their number."""
    (folder / "qrels").mkdir(parents=True)
    rows = {
        "corpus": [{"_id": str(i), "text": f"Text {i} of {name}."} for i in range(documents)],
        "queries": [{"_id": str(i), "text": f"What is text {i}?"} for i in range(queries)],
    }
    for path, of_file in rows.items():
        lines = "".join(f"{json.dumps(one)}\n" for one in of_file)
        (folder / f"{path}.jsonl").write_text(lines, encoding="utf-8")
    judged = "".join(f"{i}\t{i % documents}\t1\n" for i in range(queries))
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(head + judged, encoding="utf-8")
    return folder


def test_too_few_that_share_nothing_are_found_once_all_are_scored(
    tmp_path: Path, make_model: Any
) -> None:
    # Two queries of each document depend on each other.
    tasks = write_folder(tmp_path / "mine", documents=20, queries=40)
    keys = {"tau": 0.9, "results_dir": tmp_path / "runs", **QUIET}
    with pytest.raises(RequestError, match=r"30 independent .* are needed .* there are 20\.$"):
        lcbench.tune(make_model("bert"), tasks=tasks, **keys)
    assert (tmp_path / "runs").exists()


def test_items_are_counted_once(tmp_path: Path, make_model: Any) -> None:
    keys = {"model": make_model("bert"), "tau": 0.9, "results_dir": tmp_path / "runs", **QUIET}
    pairs = [
        {"sentence1": f"text {i}", "sentence2": f"other {i}", "score": i % 5} for i in range(20)
    ]
    lines = "".join(f"{json.dumps(one)}\n" for one in pairs)
    (tmp_path / "pairs.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(RequestError, match=r"30 .* are needed .* there are at most 20\.$"):
        lcbench.tune(tasks=tmp_path / "pairs.jsonl", **keys)
    assert not (tmp_path / "runs").exists()


def test_labelled_texts_are_enough_though_clusters_have_no_items(
    tmp_path: Path, make_model: Any
) -> None:
    rows = [
        {"text": f"{word} number {i}", "label": word}
        for i in range(60)
        for word in ("array", "plot", "matrix")
    ]
    lines = "".join(f"{json.dumps(one)}\n" for one in rows)
    (tmp_path / "mine.jsonl").write_text(lines, encoding="utf-8")
    keys = {"tau": 0.9, "results_dir": tmp_path / "runs", **QUIET}
    tuned = lcbench.tune(make_model("bert"), tasks=tmp_path / "mine.jsonl", **keys)
    assert tuned.content["left_out"] == ["own-mine-clustering"]
    assert tuned.content["tasks"] == ["own-mine-classification"]
    assert "Avg is without own-mine-clustering, whose items are not known." in str(tuned)


def test_a_repair_that_the_model_does_not_obey_is_left_out(
    tmp_path: Path, make_model: Any, texts: Path
) -> None:
    """ALBERT has one layer, which all places share."""
    progress = Recorded()
    asked = {"repairs": [{"tau": 0.9}, {"tau": {"layers": {1: 0.8}}}], **QUIET}
    keys = {"results_dir": tmp_path / "runs", "tasks": texts, **asked, "progress": progress}
    tuned = lcbench.tune(make_model("albert"), **keys)
    assert [one["repair"] for one in tuned.content["tried"]] == ["0.9"]
    (warning,) = (one for one in progress.warnings if "left out" in one)
    assert warning.startswith("τ = layers_0=1,1=0.8 is left out: ")
    assert "shared by layers of different temperatures" in warning
    # Nothing is left to be scored but what is left out.
    progress = Recorded()
    again = lcbench.tune(make_model("albert"), **{**keys, "progress": progress})
    assert again.content == tuned.content
    assert any("left out" in one for one in progress.warnings)
    with pytest.raises(RequestError, match=r"τ = layers_0=1,1=0\.8: .* is shared by layers"):
        lcbench.tune(make_model("albert"), **keys, leave_out_unsuited=False)


def test_recommendations_do_not_replace_each_other(
    found: tuple[Recommended, Path], make_model: Any, texts: Path
) -> None:
    tuned, runs = found
    keys = {"repairs": REPAIRS[:1], "results_dir": runs, "tasks": texts, **QUIET}
    other = lcbench.tune(make_model("bert"), **keys)
    assert other.path != tuned.path
    assert json.loads(tuned.path.read_text(encoding="utf-8"))["repair"] == tuned.repair


def test_queries_that_test_and_choice_share_are_refused(tmp_path: Path, make_model: Any) -> None:
    for name in ("a", "b"):
        write_folder(tmp_path / name, 40, 40, name)
    keys = {"tau": 0.9, "results_dir": tmp_path / "runs", **QUIET}
    with pytest.raises(RequestError, match=r"40 of its 80 texts are among those .* “What is"):
        lcbench.tune(make_model("bert"), tasks=tmp_path / "a", test=tmp_path / "b", **keys)


def test_a_recommendation_is_kept_if_what_follows_fails(
    tmp_path: Path, make_model: Any, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> str:
        raise LcbenchError("no room")

    monkeypatch.setattr("lcbench.api.recommend._export", failing)
    progress = Recorded()
    keys = {"repairs": REPAIRS[:2], "results_dir": tmp_path / "runs", **QUIET}
    with pytest.raises(LcbenchError, match="no room"):
        lcbench.tune(
            make_model("bert"), tmp_path / "out", tasks=texts, **{**keys, "progress": progress}
        )
    (path,) = (tmp_path / "runs" / "report").glob("tune-*.json")
    assert "as it is" in progress.text or ": ship " in progress.text
    assert f"Written to {path}" in progress.text


def test_texts_that_test_and_choice_share_are_refused(
    tmp_path: Path, make_model: Any, texts: Path
) -> None:
    lines = texts.read_text(encoding="utf-8").splitlines()
    path = write_texts(tmp_path / "test.jsonl", 40, first=1000)
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(lines[:3]) + "\n")
    keys = {"tau": 0.9, "results_dir": tmp_path / "runs", **QUIET}
    with pytest.raises(RequestError, match=r"6 of its 86 texts are among those .* such as “"):
        lcbench.tune(make_model("bert"), tasks=texts, test=path, **keys)
    assert not (tmp_path / "runs").exists()
