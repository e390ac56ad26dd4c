"""Figures of the paper by number: made of a model and texts, drawn, described, refused in words."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from observers import Recorded

import lcbench
from lcbench.api.collapses import Collapses
from lcbench.errors import LcbenchError, RequestError
from lcbench.measures.geometry import mean_cosine
from lcbench.run.reader import counter_of

SMALL: dict[str, Any] = {
    "tau": 0.5,
    "passages": 30,
    "sentences": [2],
    "whole_texts": 60,
    "bins": 2,
    "resamples": 1_000,
    "docs": {"documents": 1000},
    "offline": True,
}
MADE = ("1a", "1b", "1c", "2", "3", "4", "5", "6", "12")


@pytest.fixture(scope="module")
def asked(
    make_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("figures")
    return {
        "model": make_model("bert-of-512"),
        "tasks": ["DocstringRetrieval", "DocstringLibraryClassification"],
        "results_dir": folder / "runs",
        "store.folder": folder / "store",
        **SMALL,
    }


@pytest.fixture(scope="module")
def made(asked: dict[str, Any]) -> Collapses:
    return lcbench.collapse(**asked, figures=list(reversed(MADE)), progress=Recorded())


def test_each_figure_is_made_of_each_task_that_it_can_be_made_of(made: Collapses) -> None:
    assert not made.failed
    assert [(one.number, one.task) for one in made.figures] == [
        *((number, "DocstringRetrieval") for number in MADE if number not in ("1a", "6")),
        *((number, "DocstringLibraryClassification") for number in MADE),
    ]
    by_number = {one.number: one for one in made.figures}
    for number, figure in by_number.items():
        for panel in figure.panels if number not in ("2", "4") else ():
            names = [line.name for line in panel.lines]
            assert names == (["word embeddings"] if number == "3" else ["τ = 1", "τ = 0.5"])
    accuracy = by_number["6"].panels[1]
    assert [place.name for place in accuracy.places][:2] == ["[0, 100)", "[100, 200)"]
    # Of four libraries; the same texts and training sets as in 1a.
    assert by_number["1a"].panels[0].lines == accuracy.lines
    assert 0.1 < accuracy.lines[0].values[0].value < 1
    assert 0 < by_number["6"].panels[0].lines[0].values[0].value < np.log(4)


def test_its_values_are_those_of_the_model_itself(asked: dict[str, Any], made: Collapses) -> None:
    """Recomputed with sentence-transformers and numpy alone."""
    from sentence_transformers import SentenceTransformer

    from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes, select

    model = SentenceTransformer(str(asked["model"]), device="cpu")
    sizes = DocsSizes(1000, 12, 260, 10, 0.7, SyntheticSizes(None, 24))
    documents = select(sizes).documents
    bodies = list(dict.fromkeys(one.body for one in documents))
    tokens = np.array(counter_of(model)(bodies))
    figures = {one.number: one for one in made.figures if one.task == "DocstringRetrieval"}
    (panel,) = figures["1c"].panels
    for number, place in enumerate(panel.places):
        inside = (tokens // 100 == number) & (tokens <= 254)
        assert place.texts == inside.sum()
        assert place.tokens == pytest.approx(tokens[inside].mean())
        rows = model.encode([bodies[at] for at in np.flatnonzero(inside)])
        assert panel.lines[0].values[number].value == pytest.approx(mean_cosine(rows), abs=1e-5)
    (panel,) = figures["1b"].panels
    assert [place.name for place in panel.places] == ["query", "first sentence", "whole text"]
    assert panel.places[0].tokens < panel.places[1].tokens < panel.places[2].tokens
    words = model[0].auto_model.get_input_embeddings().weight.detach().numpy()
    (panel,) = figures["3"].panels
    short = np.flatnonzero(tokens < 100)
    ids = model.tokenizer([bodies[at] for at in short], add_special_tokens=False)["input_ids"]
    rows = np.stack([words[one].mean(axis=0) for one in ids])
    assert panel.lines[0].values[0].value == pytest.approx(mean_cosine(rows), abs=1e-5)


def test_a_second_call_encodes_nothing(
    asked: dict[str, Any], made: Collapses, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lcbench.encode.forward import Forward

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a text was encoded")

    monkeypatch.setattr(Forward, "run", refused)
    again = lcbench.collapse(**asked, figures="1c", progress=False)
    assert again.measurements == made.measurements
    assert again.figures == tuple(one for one in made.figures if one.number == "1c")


def test_figures_are_drawn_with_their_data_and_a_sentence(made: Collapses, tmp_path: Path) -> None:
    page = made.report(tmp_path / "report")
    folder = page.parent / "figures"
    for number in MADE:
        for kind in ("png", "svg", "csv"):
            assert (folder / f"figure-{number}.{kind}").stat().st_size > 500
    with (folder / "figure-1c.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    (panel,) = next(one for one in made.figures if one.number == "1c").panels
    line = [row for row in rows if row["series"] == "τ = 0.5"][: len(panel.places)]
    assert [float(row["value"]) for row in line] == [one.value for one in panel.lines[1].values]
    assert [float(row["low"]) for row in line] == [one.low for one in panel.lines[1].values]
    described = json.loads((page.parent / "collapse.json").read_text(encoding="utf-8"))
    assert [one["number"] for one in described["paper_figures"]] == [
        one.number for one in made.figures
    ]
    charts = {one["title"].partition(":")[0]: one for one in described["figures"]["charts"]}
    for number in MADE:
        for note in charts[f"Figure {number}"]["notes"]:
            assert "The paper: " in note
            assert "Here: " in note
            assert note in (page.parent / "collapse.md").read_text(encoding="utf-8")
            assert note in made.headlines
    assert len(charts["Figure 1b"]["notes"]) == 2


def test_own_texts(asked: dict[str, Any]) -> None:
    texts = [
        " ".join(f"Sentence {at} of text {place} is here." for at in range(3 + 12 * (place % 2)))
        for place in range(140)
    ]
    keys = {key: SMALL[key] for key in ("tau", "passages", "sentences", "bins", "resamples")}
    found = lcbench.collapse(
        asked["model"], texts=texts, figures=[3, "1c", 12], progress=False, **keys
    )
    assert [one.number for one in found.figures] == ["1c", "3", "12"]
    assert [line.name for line in found.figures[0].panels[0].lines] == ["τ = 1", "τ = 0.5"]
    with pytest.raises(RequestError, match="there are no labels"):
        lcbench.collapse(asked["model"], texts=texts, figures="6", progress=False, **keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"figures": "1d"}, "figures=1d: there is no such figure here; there are 1a, 1b, 1c, 2"),
        ({"figures": ["1c", 16]}, "figures=16: there is no such figure here"),
        ({"figures": 8}, "figures=8: Figure 8 is in the page of `lcbench report`"),
        ({"figures": "6", "tasks": "DocstringRetrieval"}, "Figure 6 shows a classification"),
        ({"figures": "3", "figure_texts": 10}, "figure_texts=10"),
        (
            {"figures": "3", "embeddings": "E.npy", "lengths": "L.npy"},
            r"figures=3 needs a model and texts",
        ),
    ],
)
def test_what_cannot_be_made(asked: dict[str, Any], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(LcbenchError, match=message):
        lcbench.collapse(**{**asked, **keys}, progress=False)


def test_a_figure_that_fails_leaves_the_others(
    asked: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of a window of 48 tokens there are no two intervals of 100."""
    keys = {**asked, "model": make_model("bert"), "tasks": "DocstringRetrieval"}
    observer = Recorded()
    found = lcbench.collapse(**keys, figures=["1c", "12"], progress=observer)
    assert [one.number for one in found.figures] == ["12"]
    ((name, reason),) = found.failed.items()
    assert name.startswith("Figure 1c, ")
    assert "do not give two intervals of 100 tokens" in reason


def test_facts_by_position_are_drawn_as_a_heat_map(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lcbench.measures import position

    monkeypatch.setattr(position, "FACTS", 30)
    monkeypatch.setattr(position, "DEPTHS", (0.0, 1.0))
    keys = {**asked, "measures": [], "tasks": "DocstringRetrieval"}
    found = lcbench.collapse(**keys, figures="position", progress=False)
    assert found.measurements == ()
    (figure,) = found.figures
    kinds = [panel.quantity for panel in figure.panels]
    assert kinds == [
        f"share found, {kind}, τ = {tau}" for kind in ("passkey", "needle") for tau in ("1", "0.5")
    ]
    assert [line.name for line in figure.panels[0].lines] == [
        f"{length} tokens" for length in (64, 128, 256, 512)
    ]
    # At the end of a text of twice the window nothing is read.
    assert figure.cuts[0].shares[-1] == (0.0, 1.0)
    page = found.report(tmp_path / "report")
    for kind in ("png", "svg", "csv"):
        assert (page.parent / "figures" / f"figure-position.{kind}").stat().st_size > 500
    (line,) = found.headlines
    assert line.startswith("Facts that are found, by depth and length, ")
    assert "index 1 − min/max by depth within it 64 " in line


def test_figures_that_look_into_the_model(made: Collapses, asked: dict[str, Any]) -> None:
    """Recomputed by the functions of `lcbench.measures`."""
    from sentence_transformers import SentenceTransformer

    from lcbench.measures.attention import attention
    from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes, select

    figures = {one.number: one for one in made.figures if one.task == "DocstringRetrieval"}
    (panel,) = figures["5"].panels
    assert panel.places[0].name == "[50, 100)"
    model = SentenceTransformer(str(asked["model"]), device="cpu")
    sizes = DocsSizes(1000, 12, 260, 10, 0.7, SyntheticSizes(None, 24))
    bodies = list(dict.fromkeys(one.body for one in select(sizes).documents))
    tokens = np.array(counter_of(model)(bodies))
    order = np.random.default_rng(0).permutation(len(bodies))
    short = [bodies[at] for at in order if 50 <= tokens[at] < 100][:100]
    assert panel.places[0].texts == len(short)
    sigmas = attention(model, short, 0.5, layers=[1])["sigma_a"]
    assert panel.lines[1].values[0].value == pytest.approx(sigmas.mean(), rel=1e-4)
    baseline = figures["2"].panels[0]
    assert [place.name for place in baseline.places] == ["0", "1"]
    _, alone, _, holds = baseline.lines
    assert all(
        one.value <= bound.value for one, bound in zip(alone.values, holds.values, strict=True)
    )
    measured, theorem, random, _ = figures["4"].panels[0].lines
    assert len(measured.values) == len(theorem.values) == len(random.values) == 3
    lines = [line for line in made.headlines if line.startswith(("Figure 2", "Figure 4"))]
    assert all("The paper: " in line for line in lines)
    assert len(lines) == 4
