"""The recorded Figure 1c of MiniLM, and what README and documentation say of it."""

import csv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "results/minilm/collapse"
# Texts as the documentation calls them.
_TEXTS = {"DocstringRetrieval": "docstrings"}
# Quantities of `verdicts.csv` by what the documentation calls them, and those without an interval.
_VERDICTS = {
    "one sentence": "single",
    "16 sentences": "joined",
    "rise": "rise",
    "averaging": "averaging",
    "content": "content",
    "length itself": "length",
    "one sentence repeated": "repeated",
}
_FORMS = {"single": "{:.3f}", "joined": "{:.3f}", "averaging": "{:+.3f}", "content": "{:+.3f}"}


def _line(name: str) -> list[float]:
    with (FOLDER / "figure-1c.csv").open(encoding="utf-8", newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["series"] == name]


def test_what_is_said_of_figure_1c_is_what_was_recorded() -> None:
    raw, repaired, averaging = map(_line, ("τ = 1", "τ = 0.8", "averaging of independent parts"))
    assert len(raw) == len(repaired) == len(averaging) == 5
    rise, expected = raw[-1] - raw[0], averaging[-1] - raw[0]
    said = (ROOT / "docs/collapse.md").read_text(encoding="utf-8")
    assert f"seen: {rise:+.3f} (0.104 to 0.160)" in said
    assert f"averaging independent parts would give {expected:+.3f}" in said
    change = f"{repaired[-1] - raw[-1]:.3f}".replace("-", "−")
    assert f"τ = 0.8 changes the longest by {change}" in said
    assert 0.25 < rise / expected < 1 / 3
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "by less than a third of what\naveraging independent parts would give" in readme


def test_what_is_said_of_findings_is_what_was_recorded() -> None:
    said = (ROOT / "docs/collapse.md").read_text(encoding="utf-8")
    with (FOLDER / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        found = {
            (row["repair"], row["quantity"]): tuple(
                float(row[name]) for name in ("value", "low", "high")
            )
            for row in csv.DictReader(file)
            if row["task"] == "DocstringRetrieval"
        }
    value, low, high = found["τ = 0.8", "change of rise"]
    assert f"by {-value:.3f} ({-high:.3f} to {-low:.3f}) on docstrings" in said
    value, low, high = found["τ = 1", "neighbours and length"]
    assert f"(rank correlation {value:.2f}, {low:.2f} to {high:.2f})" in said
    single, joined, change = (
        found[place][0]
        for place in (("τ = 1", "single"), ("τ = 1", "joined"), ("τ = 0.8", "change of rise"))
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"mean cosine {joined:.2f} against {single:.2f}" in readme
    assert f"reduces the rise by {-change:.2f}" in readme


def test_what_is_said_of_verdicts_is_what_was_recorded() -> None:
    said: dict[tuple[str, str], str] = {}
    columns: list[str] = []
    for line in (ROOT / "docs/collapse.md").read_text(encoding="utf-8").splitlines():
        label, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if not label:
            columns = cells
        elif label in _VERDICTS:
            # Tables that explain them have no columns of texts.
            said |= {(column, label): cell for column, cell in zip(columns, cells, strict=False)}
    checked = 0
    with (FOLDER / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            column = f"{_TEXTS[row['task']]}, {row['repair']}"
            form = _FORMS.get(row["quantity"], "{:+.3f} ({:.3f} to {:.3f})")
            numbers = (float(row[name]) for name in ("value", "low", "high"))
            shown = form.format(*numbers).replace("-", "−")
            for label in (one for one, name in _VERDICTS.items() if name == row["quantity"]):
                assert said[column, label] == shown
                checked += 1
    assert checked == 2 * len(_VERDICTS)


def test_what_is_said_of_retrieval_is_what_was_recorded() -> None:
    said = (ROOT / "docs/collapse.md").read_text(encoding="utf-8")
    rows: dict[str, list[str]] = {}
    with (FOLDER / "retrieval.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["measure"], []).append(_cell(row))
    assert len(rows) == 12
    for measure, cells in rows.items():
        assert f"| {measure} | {' | '.join(cells)} |" in said


def _cell(row: dict[str, str]) -> str:
    if not row["value"]:
        return "–"
    numbers = [float(row[name]) for name in ("value", "low", "high")]
    form = "{:+.3f} ({:.3f} to {:.3f})"
    if row["measure"] in ("reciprocal rank", "alignment"):
        form = "{:.3f} ({:.3f} to {:.3f})"
    if "beats" in row["measure"]:
        numbers, form = [100 * one for one in numbers], "{:.1f} % ({:.1f} to {:.1f})"
    return form.format(*numbers).replace("-", "−")


def test_the_picture_of_the_readme_is_small() -> None:
    assert (FOLDER / "figure-1c.png").stat().st_size <= 60 * 1024
