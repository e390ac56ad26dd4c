"""Make the paper's figures that can be made offline, with MiniLM on real texts: results/figures/.

`python scripts/make_figures.py`: docstrings of installed libraries; with `--mirror PATH` also
QMSum, where it lies there. The folder gets pictures, their data (numbers alone, no text), and an
index with a sentence on each: what the paper claims, and whether it is seen.
"""

import argparse
import csv
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lcbench
from lcbench.measures.figures import Number, PaperFigure
from lcbench.reporting.figures.paper import by_number, sentence_of, stem_of, title_of

OUT = Path(__file__).parents[1] / "results" / "figures"
OF_DOCUMENTS: tuple[Number, ...] = ("1b", "1c", "2", "3", "4", "5", "12", "position")
OF_CLASSES: tuple[Number, ...] = ("1a", "6")
TAU = 0.8
MODEL: dict[str, Any] = {"model": "minilm", "model.window": 512, "offline": True}
# Figures of scores by the names of files: title, table of the report, and what is compared. What
# the paper says of Figures 8 and 9 was not at hand; what is said of 9 is from its Table 2.
OF_SCORES = {
    "figure-7": (
        "Figures 7 and 13: nDCG@100 of the shortest and the longest queries",
        "by-query-length.csv",
        "The paper (E.5), of the longest and the shortest 20 % of SummScreenFD's queries, "
        "concludes that long queries require a lower τ, from a sentence that says that they lose "
        f"as τ falls. Here, do the longest queries gain more from τ = {TAU:g} than the shortest, "
        "with intervals that do not overlap?",
    ),
    "figure-8": (
        "Figures 8 and 14: accuracy by intervals of length and τ",
        "by-hundreds.csv",
        "The paper shows the accuracy on AmazonPolarity by length and τ; what it says of it was "
        f"not at hand. Here, do the longest texts gain more from τ = {TAU:g} than the shortest, "
        "with intervals that do not overlap?",
    ),
}
QMSUM = "LEMBQMSumRetrieval"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", type=Path, help="a folder of datasets, for QMSum")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go")
    parser.add_argument("--documents", type=int, default=600, help="docstrings that are read")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    mirror = (
        chosen.mirror if chosen.mirror and (chosen.mirror / "dwzhu/LongEmbed").exists() else None
    )
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "figures")
        made.mkdir()
        lines = list(make(Path(scratch), made, mirror, chosen.documents))
        chosen.out.mkdir(parents=True, exist_ok=True)
        # Only once all are made, and nothing but figures.
        for old in chosen.out.glob("figure-*"):
            old.unlink()
        for path in made.iterdir():
            shutil.copyfile(path, chosen.out / path.name)
    index = [
        "# The paper's figures, of MiniLM",
        "",
        "Made by `make figures`, offline: all-MiniLM-L6-v2 with a window of 512 tokens, on "
        f"docstrings of installed libraries{' and QMSum' if mirror else ''}. Of each: what the "
        "paper (arXiv:2410.24200v1) claims, and whether it is seen; `.csv` has the data. Figures "
        "that are not made, and why: `docs/paper.md`.",
        "",
        *lines,
    ]
    (chosen.out / "README.md").write_text("\n".join(index), encoding="utf-8")
    print(f"written to {chosen.out} in {time.monotonic() - began:.0f} s")


def make(scratch: Path, out: Path, mirror: Path | None, documents: int) -> Iterator[str]:
    """Make all figures, and yield the lines of the index."""
    common = {**MODEL, "store.folder": scratch / "store", "docs": {"documents": documents}}
    figures: list[PaperFigure] = []
    for task, numbers in (
        ("DocstringRetrieval", OF_DOCUMENTS),
        ("DocstringLibraryClassification", OF_CLASSES),
    ):
        found = lcbench.collapse(
            tasks=task,
            tau=TAU,
            measures=[],
            figures=list(numbers),
            results_dir=scratch / "collapse",
            **common,
        )
        found.report(scratch / task)
        figures += found.figures
        for number in numbers:
            for kind in ("png", "csv"):
                name = f"{stem_of(number)}.{kind}"
                shutil.copyfile(scratch / task / "figures" / name, out / name)
    for number, group in by_number(figures).items():
        yield from (f"## {title_of(number)}", "")
        yield from (f"![{title_of(number)}]({stem_of(number)}.png)", "")
        yield from (sentence_of(group[0]), "")
    yield from of_scores(scratch, out, mirror, common)


def of_scores(
    scratch: Path, out: Path, mirror: Path | None, common: dict[str, Any]
) -> Iterator[str]:
    """Make the figures of scores from a report's tables, and yield their lines of the index."""
    tasks = ["DocstringRetrieval", "DocstringLibraryClassification", *([QMSUM] if mirror else [])]
    results = lcbench.evaluate(
        tasks=tasks,
        tau=[TAU, {"query": TAU, "document": 1.0}, {"query": 1.0, "document": TAU}],
        results_dir=scratch / "runs",
        mirror=mirror,
        **common,
    )
    folder = results.report(scratch / "report").folder
    for stem, (_, name, _) in OF_SCORES.items():
        shutil.copyfile(folder / "tables" / name, out / f"{stem}.csv")
    for kind in ("png", "csv"):
        shutil.copyfile(folder / "figures" / f"roles.{kind}", out / f"figure-9.{kind}")
    yield from lines_of_scores(out)


def lines_of_scores(out: Path) -> Iterator[str]:
    """Yield the index's lines on figures of scores, from their tables in a folder."""
    for stem, (title, _, said) in OF_SCORES.items():
        yield from (f"## {title}", "", f"{said} {ends(out / f'{stem}.csv')}.", "")
    with (out / "figure-9.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["improvement"]]
    title = "Figures 9 and 15: τ of queries by τ of documents"
    yield from (f"## {title}", "", f"![{title}](figure-9.png)", "")
    yield (
        "The paper shows QMSum and SummScreenFD; what it says of the figure was not at hand. In "
        "its Table 2 (nDCG@10, at a τ that is not stated) all five models score higher with "
        "TempScale on documents alone than on queries alone on QMSum, and lower on SummScreenFD. "
        f"Here, of τ = {TAU:g} and without intervals: {'; '.join(_of_roles(rows))}."
    )
    yield ""


def _of_roles(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Yield what a task gains from the lower τ on documents, on queries, and on both."""
    for what in dict.fromkeys(row["what"] for row in rows):
        gains = {
            (float(row["query_tau"]), float(row["document_tau"])): float(row["improvement"])
            for row in rows
            if row["what"] == what
        }
        yield (
            f"{what} {gains[1, TAU]:+.1f} % on documents alone, {gains[TAU, 1]:+.1f} % on queries "
            f"alone, {gains[TAU, TAU]:+.1f} % on both"
        )


def ends(path: Path) -> str:
    """Return how the shortest and the longest of a report's table change at the lower τ."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[""] == "relative (%)"]
    return ". ".join(
        _compared(section, [row for row in rows if row["section"] == section])
        for section in dict.fromkeys(row["section"] for row in rows)
    )


def _compared(section: str, rows: Sequence[dict[str, str]]) -> str:
    column = f"τ = {TAU:g}"
    label = next(iter(key for key in rows[0] if key not in ("section", "Count")))
    parts = []
    limits = []
    for row in (rows[0], rows[-1]):
        value, low, high = (float(row[f"{column}{end}"] or "nan") for end in ("", " low", " high"))
        limits.append((low, high))
        said = "unknown" if math.isnan(value) else f"{value:+.1f} % ({low:+.1f} to {high:+.1f})"
        parts.append(f"{row[label]} {said}")
    (short_low, short_high), (long_low, long_high) = limits
    verdict = "Cannot be told"
    if long_low > short_high:
        verdict = "Yes"
    elif long_high < short_low:
        verdict = "No, the shortest do"
    return f"{verdict}, {section}: {', '.join(parts)}"


if __name__ == "__main__":
    main()
