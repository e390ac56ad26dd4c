"""The recorded Figure 1c of MiniLM, and what README and documentation say of it."""

import csv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "results/minilm/collapse"


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
