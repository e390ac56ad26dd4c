"""The index of the paper's figures: what is said of the ends of a report's table."""

from pathlib import Path

import make_figures
import pytest

HEADER = "section,Queries,Count,,τ = 1,τ = 0.8,τ = 0.8 low,τ = 0.8 high\n"


@pytest.mark.parametrize(
    ("shortest", "longest", "said"),
    [
        ("1.0,0.5,1.5", "3.0,2.0,4.0", "seen, A: short +1.0 % (+0.5 to +1.5), long +3.0 %"),
        ("3.0,2.0,4.0", "1.0,0.5,1.5", "not seen, but the opposite, A: "),
        ("1.0,0.5,2.5", "3.0,2.0,4.0", "cannot be told, A: "),
        (",,", "3.0,2.0,4.0", "cannot be told, A: short +nan %"),
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
