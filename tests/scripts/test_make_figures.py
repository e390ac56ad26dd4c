"""The index of the paper's figures: what is said of the ends of a report's table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_figures
import pytest

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
    """And no more of the paper than is known: of Figures 8 and 9 only what they show."""
    index = (make_figures.OUT / "README.md").read_text(encoding="utf-8")
    lines = list(make_figures.lines_of_scores(make_figures.OUT))
    assert "\n".join(lines) in index
    claims = [line for line in lines if "The paper" in line]
    assert len(claims) == 3
    assert "concludes that long queries need a lower τ" in claims[0]
    assert [line.split(". ")[0] for line in claims[1:]] == [
        "The paper shows AmazonPolarity",
        "The paper shows QMSum and SummScreenFD",
    ]
    assert "chosen on the same queries" in claims[2]
