"""`cli.report`: which of a report's tables are printed."""

import pytest

from lcbench.cli.report import _split
from lcbench.errors import RequestError
from lcbench.reporting.table import Table

NAMES = ("table1", "table1-2", "choice", "scores", "matrix", "by-length", "lengths")
TABLES = [Table(name, name, ("x",), 0, ()) for name in NAMES]


@pytest.mark.parametrize(
    ("asked", "printed"),
    [
        ((), ("table1", "table1-2", "choice")),
        (("lengths",), ("table1", "table1-2", "choice", "lengths")),
        (("all",), NAMES),
    ],
)
def test_the_main_tables_are_printed_and_those_that_are_asked_for(
    asked: tuple[str, ...], printed: tuple[str, ...]
) -> None:
    shown, others = _split(TABLES, asked)
    assert tuple(table.name for table in shown) == printed
    assert {table.name for table in others} == set(NAMES) - set(printed)


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(RequestError, match=r"show=lenghts: .*Did you mean.*lengths.*It has: tab"):
        _split(TABLES, ["lenghts"])
