"""`python -m lcbench doctor`: checks the installation and the machine, and shows remedies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.api.doctor import Check, examine, is_missing
from lcbench.cli.console import emit_csv, plain_table, screen
from lcbench.settings.doctor import read_doctor

if TYPE_CHECKING:
    from omegaconf import DictConfig

_STYLES = {"ok": "green", "note": "dim", "warning": "yellow", "missing": "red"}


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    settings = read_doctor(config)
    checks = examine(settings)
    if settings.format == "csv":
        emit_csv(Check, checks)
        return 1 if is_missing(checks) else 0
    from rich.text import Text

    table = plain_table()
    for heading in ("", "state", "found"):
        table.add_column(heading, overflow="fold")
    topic = ""
    for check in checks:
        if check.topic != topic:
            table.add_row(Text(check.topic, "bold"))
            topic = check.topic
        table.add_row(Text(f" {check.name}"), Text(check.state, _STYLES[check.state]), check.found)
    console = screen()
    console.print(table)
    for check in checks:
        if check.remedy and check.state in ("warning", "missing"):
            console.print(Text(f"{check.name}: {check.remedy}", _STYLES[check.state]))
    if not is_missing(checks):
        console.print(Text("Nothing essential is missing."))
    return 1 if is_missing(checks) else 0
