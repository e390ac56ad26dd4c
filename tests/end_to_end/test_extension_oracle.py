"""MiniLM taken as a model of 256 positions, extended to 512, against its own 512."""

import csv
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from lcbench.hub.windows import set_window
from lcbench.repair.extension import parse
from lcbench.tasks.reference import read_reference, texts_of

PAGE = Path(__file__).parents[2] / "docs" / "extension.md"
RECORDED = Path(__file__).parents[2] / "results" / "minilm" / "extension"
EXTENSIONS: dict[str, Any] = {
    "none: cut at 256 tokens": None,
    "{gp: 512, from: 256}": {"gp": 512, "from": 256},
    "{rp: 512, from: 256}": {"rp": 512, "from": 256},
    "{pi: 512, from: 256}": {"pi": 512, "from": 256},
}


def cosines(folder: Path, count: int) -> dict[str, NDArray[Any]]:
    """Return cosines of long docstrings' embeddings to those with the model's own 512 positions."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    set_window(model, 512)
    long = (
        one
        for one in texts_of(read_reference("docstrings"))
        if len(model.tokenizer(one)["input_ids"]) >= 512
    )
    texts = list(islice(long, count))
    assert len(texts) == count
    true = model.encode(texts, normalize_embeddings=True)
    found = {}
    for name, value in EXTENSIONS.items():
        applied = None if value is None else parse(value).apply(model)
        set_window(model, 256 if value is None else 512)
        found[name] = (model.encode(texts, normalize_embeddings=True) * true).sum(axis=1)
        if applied is not None:
            applied.remove()
    return found


def test_extended_embeddings_are_nearer_to_the_true_ones(minilm_folder: Path) -> None:
    """Than those of texts that are cut, in each of two texts and with each method."""
    cut, *extended = cosines(minilm_folder, 2).values()
    assert all((one > cut + 0.04).all() for one in extended)


def test_the_scores_of_the_documentation_are_recorded() -> None:
    """On QMSum each method gains nearly as much as true positions; on docstrings all lose."""
    with (RECORDED / "tasks.csv").open(encoding="utf-8", newline="") as file:
        cells = {(row["policy"], row["task"]): row for row in csv.DictReader(file)}
    names = {"none: cut at 256 tokens": "1", "`{window: 512}`, the true positions": "window=512"}
    page = PAGE.read_text("utf-8").replace("−", "-")
    number = r"(\d\d\.\d\d) \|(.*?)\|"
    rows = re.findall(rf"^\| (.+?) \| {number} {number}$", page, re.M)
    assert len(rows) == len(cells) / 2 == 5
    losses, gains = [], []
    for name, docstrings, lost, meetings, gained in rows:
        part = names.get(name) or re.sub(r"[`{} ]", "", name).replace(":", "=")
        policy = part if part == "1" else f"extend={part}"
        for task, score, change in (
            ("DocstringLongRetrieval", docstrings, lost),
            ("LEMBQMSumRetrieval", meetings, gained),
        ):
            cell = cells[policy, task]
            assert score == f"{float(cell['value']):.2f}"
            if policy != "1":
                ends = (float(cell[key]) for key in ("improvement", "low", "high"))
                assert change.strip() == "{:.1f} ({:.1f} to {:.1f})".format(*ends)
        if "from" in policy:
            losses.append(float(cells[policy, "DocstringLongRetrieval"]["adjusted"]))
            gains.append(float(cells[policy, "LEMBQMSumRetrieval"]["low"]))
    # GP, RP, PI.
    assert [one < 0.05 for one in losses] == [True, False, True]
    assert min(gains) > 0


@pytest.mark.exhaustive
def test_the_table_of_the_documentation(minilm_folder: Path) -> None:
    rows = re.findall(r"^\| (.+?) \| (0\.\d\d) \| (0\.\d\d) \|$", PAGE.read_text("utf-8"), re.M)
    stated = {name.replace("`", ""): (float(mean), float(least)) for name, mean, least in rows}
    assert stated.keys() == EXTENSIONS.keys()
    found = cosines(minilm_folder, 10)
    for name, values in found.items():
        assert stated[name] == pytest.approx((values.mean(), values.min()), abs=0.006), name
    cut, *extended = found.values()
    assert all((one > cut).all() for one in extended)
