"""Attention and signal by `lcbench.collapse`: kept, resumed, reported, refused in words."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from observers import Recorded
from odd_models import REFUSED, SCORED

import lcbench
from lcbench.api.collapses import Collapses
from lcbench.api.keywords import words_of
from lcbench.cli import app
from lcbench.errors import LcbenchError, RequestError
from lcbench.measures.attention import attention, causal_sigma_a
from lcbench.measures.bounds import bounds
from lcbench.measures.inside import changes
from lcbench.measures.signal import signal
from lcbench.run import collapse as run
from lcbench.run.reader import counter_of

LENGTHS = [16, 48]
SMALL: dict[str, Any] = {
    "measures": ["attention", "signal"],
    "traced_texts": 30,
    "traced_lengths": LENGTHS,
    "resamples": 1_000,
    "docs": {"documents": 600},
    "store": "none",
    "offline": True,
}


@pytest.fixture(scope="module")
def asked(
    make_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("inside")
    return {"model": make_model("bert"), "tau": 0.5, "results_dir": folder / "runs", **SMALL}


@pytest.fixture(scope="module")
def observer() -> Recorded:
    return Recorded()


@pytest.fixture(scope="module")
def found(asked: dict[str, Any], observer: Recorded) -> Collapses:
    return lcbench.collapse(**asked, progress=observer)


def test_each_temperature_is_measured_and_embeddings_are_not(
    found: Collapses, observer: Recorded
) -> None:
    assert not found.failed
    assert found.measurements == ()
    assert [one.policy for one in found.inside] == ["1", "0.5"]
    for one in found.inside:
        assert one.inside.lengths == tuple(LENGTHS)
        assert one.inside.texts == 30
        assert set(one.inside.taus) == {float(one.policy)}
        assert len(one.inside.heads) == 2 * 4
    assert "attention of texts of 48 tokens takes up to" in observer.text


def test_numbers_are_those_of_the_functions(asked: dict[str, Any], found: Collapses) -> None:
    from sentence_transformers import SentenceTransformer

    from lcbench.measures.inside import choose
    from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes, select

    model = SentenceTransformer(str(asked["model"]), device="cpu")
    sizes = DocsSizes(600, 12, 260, 10, 0.7, SyntheticSizes(None, 24))
    bodies = [one.body for one in select(sizes).documents]
    one = found.inside[1]
    chosen = choose(bodies, counter_of(model), 48, 46, one.options)
    whole = model.tokenizer(list(chosen.texts), verbose=False)["input_ids"]
    cut = [[*ids[:15], ids[-1]] for ids in whole]
    heads = attention(model, cut, 0.5)
    means = heads.groupby(["layer", "head"])["sigma_a"].mean()
    for head in one.inside.heads:
        assert head.values["sigma_a"][0] == pytest.approx(means[head.layer, head.head], rel=1e-4)
    entropy = heads.groupby("layer")["entropy"].mean()
    steps = signal(model, cut, 0.5).groupby(["layer", "part", "step"])["log_ratio"].mean()
    limits = bounds(model, cut, 0.5).groupby("layer")[["attention", "summed"]].mean()
    for layer in (0, 1):
        got = one.inside.of("attention", "entropy")[layer].values[0]
        assert got.value == pytest.approx(entropy[layer], rel=1e-4)
        assert got.low < got.value < got.high
        for name in ("attention", "summed"):
            value = one.inside.of("bound", name)[layer].values[0].value
            assert value == pytest.approx(limits[name][layer], abs=1e-4)
    for (layer, part, step), value in steps.items():
        got = one.inside.of(part, step)[layer].values[0]
        assert got.value == pytest.approx(value, abs=1e-4)


def test_a_second_call_reads_what_is_there_and_other_measures_are_others(
    asked: dict[str, Any], found: Collapses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(run, "load_for", refused)
    assert lcbench.collapse(**asked, progress=False).inside == found.inside
    (folder,) = asked["results_dir"].glob("*/collapse/*/*/tau_0.5")
    assert len(list(folder.glob("DocstringRetrieval-*.json"))) == 1
    for other in ({"measures": "attention"}, {"traced_lengths": [16, 32]}, {"seed": 1}):
        with pytest.raises(LcbenchError, match="a model was loaded"):
            lcbench.collapse(**{**asked, **other}, progress=False)


def test_it_is_reported_in_tables_figures_and_the_page(found: Collapses, tmp_path: Path) -> None:
    page = found.report(tmp_path / "report")
    tables = found.tables
    assert set(tables) == {"attention", "inside-changes", "signal", "bounds", "heads"}
    assert len(tables["attention"]) == 2 * 2 * 2
    assert len(tables["heads"]) == 2 * 2 * 4 * 2
    for name in tables:
        assert (page.parent / "tables" / f"{name}.tex").is_file()
    for stem in ("sigma_a", "sigma_s", "entropy", "signal", "attention-alone"):
        for kind in ("png", "svg", "csv"):
            assert (page.parent / "figures" / f"{stem}.{kind}").stat().st_size > 500
    with (page.parent / "figures" / "sigma_a.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["panel"].endswith("τ = 0.5")]
    sigmas = found.inside[1].inside.of("attention", "sigma_a")
    at_16 = [float(row["value"]) for row in rows if row["series"] == "16 tokens"]
    assert at_16 == [by.values[0].value for by in sigmas.values()]
    described = json.loads((page.parent / "collapse.json").read_text(encoding="utf-8"))
    assert [one["policy"] for one in described["inside"]] == ["1", "0.5"]
    text = (page.parent / "collapse.md").read_text(encoding="utf-8")
    for line in found.headlines:
        assert line in text
    assert "from 16 to 48 tokens σ_a" in found.headlines[0]


def test_a_report_of_the_folder_has_verdicts_and_what_happens_inside_on_one_page(
    asked: dict[str, Any], found: Collapses, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(asked["results_dir"], runs)
    small = {"passages": 30, "sentences": [2], "whole_texts": 60, "bins": 2, "queries": 30}
    keys = {**asked, **small, "measures": "embeddings", "corpus": 30, "results_dir": runs}
    del keys["traced_lengths"]
    lcbench.collapse(**keys, progress=False)
    shown = lcbench.report(runs, report_dir=tmp_path / "report", progress=False)
    assert shown.collapse is not None
    # The one written last comes first; tables have the baseline first.
    assert shown.collapse.inside == found.inside[::-1]
    assert {"collapse", "attention", "signal"} <= shown.collapse.tables.keys()
    # The command, into the same folder of another report.
    words = words_of("report", {"results_dir": runs, "report_dir": tmp_path / "command"})
    assert app.run(["report", *words]) == 0
    for name in ("report", "command"):
        path = tmp_path / name / "collapse/collapse.json"
        page = json.loads(path.read_text(encoding="utf-8"))
        assert {one["policy"] for one in page["measurements"]} == {"1", "0.5"}
        assert {one["policy"] for one in page["inside"]} == {"1", "0.5"}


def test_a_repair_is_compared_with_the_baseline_text_by_text(
    asked: dict[str, Any], found: Collapses
) -> None:
    from sentence_transformers import SentenceTransformer

    from lcbench.measures.inside import choose
    from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes, select

    model = SentenceTransformer(str(asked["model"]), device="cpu")
    sizes = DocsSizes(600, 12, 260, 10, 0.7, SyntheticSizes(None, 24))
    bodies = [one.body for one in select(sizes).documents]
    before, after = found.inside
    chosen = choose(bodies, counter_of(model), 48, 46, before.options)
    whole = model.tokenizer(list(chosen.texts), verbose=False)["input_ids"]
    cut = [[*ids[:15], ids[-1]] for ids in whole]
    by = ["layer", "text"]
    heads = [attention(model, cut, tau).groupby(by).mean(numeric_only=True) for tau in (1, 0.5)]
    blocks = [signal(model, cut, tau).query("part == 'block'") for tau in (1, 0.5)]
    ratios = [block.groupby(by)["log_ratio"].mean() for block in blocks]
    differences = {
        "sigma_a": heads[1]["sigma_a"] - heads[0]["sigma_a"],
        "entropy": heads[1]["entropy"] - heads[0]["entropy"],
        "first": heads[1]["first"] - heads[0]["first"],
        "block": ratios[1] - ratios[0],
    }
    changed = changes(after.inside, before.inside, after.options)
    assert len(changed) == 4 * 2
    for one in changed:
        expected = differences[one.name][one.layer]
        value = one.values[0]
        assert value.value == pytest.approx(expected.mean(), abs=1e-5)
        # As wide as the spread of differences, not of the texts.
        error = expected.std(ddof=1) / np.sqrt(len(expected))
        assert (value.high - value.low) / 2 == pytest.approx(2.05 * error, rel=0.2)
    table = found.tables["inside-changes"]
    assert len(table) == 2 * 2
    assert set(table["Repair"]) == {"τ = 0.5"}
    first = next(one for one in changed if one.name == "entropy" and one.layer == 0)
    assert table["Entropy (nats)"][0] == first.values[0].value
    assert table["Entropy (nats) low"][0] == first.values[0].low
    (line,) = (line for line in found.headlines if "against the baseline, at 48 tokens" in line)
    assert "entropy rises in 0 of 2 layers and falls in 2, in the last by -" in line
    with pytest.raises(RequestError, match=r"30 texts of \[16, 48\] tokens cannot be compared"):
        changes(after.inside, replace(before.inside, texts=31), after.options)


def test_bounds_hold_and_steps_add_up(found: Collapses) -> None:
    signs = found.tables["signal"]
    steps = [column for column in signs if column.endswith(("added", "normalised"))]
    assert np.allclose(signs[steps].sum(axis=1), signs["block"], atol=1e-6)
    limits = found.tables["bounds"]
    for name in ("Bound, summed", "Bound, stacked"):
        assert (limits["Attention alone"] <= limits[name]).all()


def test_of_a_causal_model_what_counts_is_beyond_the_mask(
    make_model: Callable[[str], Path],
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(make_model("qwen3")), device="cpu")
    texts = [f"{place} " + "one more word of this text " * 12 for place in range(40)]
    keys = {key: SMALL[key] for key in ("traced_texts", "traced_lengths", "resamples")}
    got = lcbench.collapse(model, texts=texts, tau=1, measures="attention", progress=False, **keys)
    (one,) = got.inside
    assert one.inside.is_masked
    table = got.tables["attention"]
    even = table["Tokens"].map(causal_sigma_a)
    assert np.allclose(table["σ_a"] - table["σ_a beyond the mask"], even, atol=1e-5)
    assert (table["First token"] >= 1 / table["Tokens"]).all()
    assert "from 16 to 48 tokens σ_a beyond the mask" in got.headlines[0]
    assert "The paper's Theorem 3 is of attention without a mask." in got.headlines[0]
    assert "at 48 tokens the first one has most of the attention in layer" in got.headlines[1]


def test_own_texts_on_a_loaded_model(asked: dict[str, Any]) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(asked["model"]), device="cpu")
    texts = [f"{place} " + "one more word of this text " * 12 for place in range(40)]
    keys = {key: SMALL[key] for key in ("traced_texts", "traced_lengths", "resamples")}
    got = lcbench.collapse(
        model, texts=texts, tau=0.5, measures="attention", progress=False, **keys
    )
    assert [one.policy for one in got.inside] == ["1", "0.5"]
    assert set(got.tables) == {"attention", "inside-changes", "heads"}
    assert model.max_seq_length == 48


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"measures": "heads"}, "measures=heads"),
        ({"measures": []}, r"measures=\[\] measures nothing"),
        ({"traced_lengths": [64, 16]}, "in ascending order"),
        ({"traced_lengths": [16, 64]}, "lengths are from 3 tokens.* to the window of 48"),
        ({"measures": "embeddings"}, r"traced_lengths=\[16, 48\] is a key of measures inside"),
        ({"traced_texts": 3}, "traced_texts=3"),
        (
            {"embeddings": "E.npy", "lengths": "L.npy"},
            "what happens inside a model needs the model",
        ),
    ],
)
def test_what_cannot_be_measured(asked: dict[str, Any], keys: dict[str, Any], message: str) -> None:
    with pytest.raises((LcbenchError, RequestError), match=message):
        lcbench.collapse(**{**asked, **keys}, progress=False)


def test_more_memory_than_there_is_is_one_message(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lcbench.measures import trace

    monkeypatch.setattr(trace, "memory_gib", lambda: 1e-6)
    with pytest.raises(LcbenchError) as caught:
        lcbench.collapse(**{**asked, "results_dir": tmp_path, "tau": 1.0}, progress=False)
    (line,) = str(caught.value).splitlines()
    assert "attention weights of a text of 48 tokens need" in line
    assert "measure shorter texts" in line


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("token vectors", "has no attention: its first module is StaticEmbedding"),
        ("Fourier transforms that see padding", "FNet"),
        ("a state space, without attention", "Mamba"),
    ],
)
def test_a_model_without_attention_is_one_message(
    asked: dict[str, Any], minilm_folder: Path, tmp_path: Path, what: str, message: str
) -> None:
    build = REFUSED[what][0] if what in REFUSED else SCORED[what]
    model = build(tmp_path / "model", minilm_folder)
    keys = {**asked, "model": model, "tau": 1.0, "results_dir": tmp_path / "runs"}
    with pytest.raises(LcbenchError) as caught:
        lcbench.collapse(**keys, progress=False)
    (line,) = str(caught.value).splitlines()
    assert message in line
