"""The index of the paper's figures: what is said of the ends of a report's table."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_figures
import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = "section,Queries,Count,,τ = 1,τ = 0.8,τ = 0.8 low,τ = 0.8 high\n"


@pytest.mark.parametrize(
    ("shortest", "longest", "said"),
    [
        ("1.0,0.5,1.5", "3.0,2.0,4.0", "Yes, A: short +1.0 % (+0.5 to +1.5), long +3.0 %"),
        ("3.0,2.0,4.0", "1.0,0.5,1.5", "No, the shortest do, A: "),
        ("1.0,0.5,2.5", "3.0,2.0,4.0", "Cannot be told, A: "),
        (",,", "3.0,2.0,4.0", "Cannot be told, A: short unknown, long +3.0 %"),
    ],
)
def test_the_shortest_and_the_longest_are_compared(
    tmp_path: Path, shortest: str, longest: str, said: str
) -> None:
    rows = [
        "A,short,40,nDCG@100,50,51,,",
        f"A,short,40,relative (%),,{shortest}",
        "A,long,40,nDCG@100,50,51,,",
        f"A,long,40,relative (%),,{longest}",
    ]
    path = tmp_path / "table.csv"
    path.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    assert make_figures.ends(path).startswith(said)


def test_figures_of_before_are_kept_until_all_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "figure-1a.png").write_bytes(b"before")
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")

    def made(scratch: Path, out: Path, *_: Any) -> Iterator[str]:
        (out / "figure-2.png").write_bytes(b"new")
        yield "## Figure 2"

    def broken(*arguments: Any) -> Iterator[str]:
        yield from made(*arguments)
        raise RuntimeError("broken")

    monkeypatch.setattr(make_figures, "make", broken)
    with pytest.raises(RuntimeError, match="broken"):
        make_figures.main(["--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure-1a.png", "mine.txt"]
    monkeypatch.setattr(make_figures, "make", made)
    make_figures.main(["--out", str(tmp_path)])
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["README.md", "figure-2.png", "mine.txt"]
    assert "## Figure 2" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_index_says_of_figures_of_scores_what_their_recorded_tables_say() -> None:
    index = (make_figures.OUT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(make_figures.lines_of_scores(make_figures.OUT)) in index


def test_no_more_is_said_of_the_paper_than_is_known() -> None:
    """Of Figure 7 two sentences that do not agree, of 8 and 9 what they show, and Table 2."""
    lines = list(make_figures.lines_of_scores(make_figures.OUT))
    queries, classes, roles = (line for line in lines if "The paper" in line)
    assert "concludes that long queries require a lower τ, from a sentence that says" in queries
    assert classes.startswith("The paper shows the accuracy on AmazonPolarity by length and τ; ")
    assert roles.startswith("The paper shows QMSum and SummScreenFD; what it says of the ")
    assert "all five models score higher with TempScale on documents alone" in roles
    with (ROOT / "results/paper/table2.csv").open(encoding="utf-8", newline="") as file:
        printed = {(row["dataset"], row["setting"]): row for row in csv.DictReader(file)}
    for task, sign in (("LEMBQMSumRetrieval", 1), ("LEMBSummScreenFDRetrieval", -1)):
        documents, questions = printed[task, "w/o query"], printed[task, "w/o doc"]
        models = [name for name in documents if name not in ("dataset", "setting")]
        assert len(models) == 5
        assert all(sign * (float(documents[one]) - float(questions[one])) > 0 for one in models)
