"""Tables of Markdown that are aligned as plain text, too."""

from collections.abc import Sequence


def table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] | None = None
) -> list[str]:
    """Return the lines of a table.

    Args:
        heading: of each column.
        rows: with as many cells each.
        right: columns that are aligned to the right; None: all but the first.
    """
    count = len(heading)
    to_right = range(1, count) if right is None else right
    widths = [max(3, *(len(row[i]) for row in (heading, *rows))) for i in range(count)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i in to_right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (n - 1) + ":" if i in to_right else ":" + "-" * (n - 1) for i, n in enumerate(widths)
    ]
    return [line(heading), line(rule), *map(line, rows)]
