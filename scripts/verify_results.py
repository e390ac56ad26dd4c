"""Write the recorded reports again from their recorded cells, and compare every number.

`python scripts/verify_results.py`: of every folder in results/ that has `cells`. With --record the
reports there are written anew; the notes on top of their Markdown files stay.
"""

import argparse
import csv
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lcbench.reporting.publish import publish
from lcbench.reporting.select import report_folder
from lcbench.results.folder import Results

RESULTS = Path(__file__).parents[1] / "results"
# Libraries of other versions add up in another order.
TOLERANCE = 1e-9


def main() -> None:
    """Compare, or record, and exit with 1 if a number differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of recorded results")
    parser.add_argument("--record", action="store_true", help="write the reports anew")
    asked = parser.parse_args()
    sys.exit(verify(asked.results, records=asked.record))


def verify(results: Path, *, records: bool = False) -> int:
    """Compare every recorded report below a folder with one that is written now.

    Args:
        results: the folder.
        records: whether the recorded files are replaced in the place of being compared.

    Returns:
        0 if all numbers agree, 1 if one differs.
    """
    wrong = []
    places = sorted(path.parent for path in results.rglob("cells") if path.is_dir())
    if not places:
        wrong.append(f"{results} has no folder with cells")
    for place in places:
        with tempfile.TemporaryDirectory() as temporary:
            fresh = Path(temporary) / "report"
            results_of = Results(place / "cells")
            publish(report_folder(results_of, None, fresh, wrong.append))
            if records:
                _record(fresh, place)
            numbers, differences = compare(place, fresh)
            wrong += [f"{place}: {one}" for one in differences]
            print(f"{place}: {numbers} values compared, {len(differences)} differ")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def compare(recorded: Path, fresh: Path) -> tuple[int, list[str]]:
    """Return how many values of the recorded CSV files were compared, and which differ.

    Args:
        recorded: folder of a recorded report.
        fresh: folder of the same report, written now.
    """
    compared, differences = 0, []
    files = sorted(path.relative_to(recorded) for path in recorded.rglob("*.csv"))
    for name in files:
        if not (fresh / name).is_file():
            differences.append(f"{name} is not written any more")
            continue
        there, here = _rows(recorded / name), _rows(fresh / name)
        if [len(row) for row in there] != [len(row) for row in here]:
            differences.append(f"{name} has other rows or columns")
            continue
        for line, (old, new) in enumerate(zip(there, here, strict=True), 1):
            for one, other in zip(old, new, strict=True):
                compared += 1
                if not _equal(one, other):
                    differences.append(f"{name}, line {line}: {one} is now {other}")
    if not files:
        differences.append("has no CSV file")
    return compared, differences


def _rows(path: Path) -> Sequence[Sequence[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _equal(one: str, other: str) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except ValueError:
        return one == other


def _record(fresh: Path, place: Path) -> None:
    """Replace the recorded files by those of a report; which files are kept does not change."""
    for old in sorted(place.rglob("*")):
        name = old.relative_to(place)
        if name.parts[0] == "cells" or not (fresh / name).is_file():
            continue
        if old.suffix == ".md":
            note = "".join(_note(old.read_text(encoding="utf-8")))
            text = (fresh / name).read_text(encoding="utf-8")
            old.write_text(note + text, encoding="utf-8")
        else:
            shutil.copyfile(fresh / name, old)


def _note(text: str) -> Iterator[str]:
    """Yield the lines of the quotation on top of a Markdown text, and the empty one below it."""
    for line in text.splitlines(keepends=True):
        if line.startswith(">"):
            yield line
        else:
            if not line.strip():
                yield line
            return


if __name__ == "__main__":
    main()
