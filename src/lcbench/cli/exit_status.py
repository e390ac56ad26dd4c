"""The exit status of a command and, for Hydra's sweepers, the value that they maximise."""

from __future__ import annotations


class ExitStatus(int):
    """An exit status with a value, which a sweeper such as Optuna's maximises.

    Attributes:
        value: the value; None: there is none.
    """

    value: float | None

    def __new__(cls, status: int, value: float | None) -> ExitStatus:
        """Return the status with the value."""
        made = super().__new__(cls, status)
        made.value = value
        return made
