"""The end of a command's job: its exit status and, for Hydra's sweepers, a value."""

from __future__ import annotations


class Ended(int):
    """An exit status that may have a value, which a sweeper such as Optuna's maximises.

    Attributes:
        value: the value; None: there is none.
    """

    value: float | None

    def __new__(cls, status: int, value: float | None = None) -> Ended:
        """Return the status with the value."""
        ended = super().__new__(cls, status)
        ended.value = value
        return ended
