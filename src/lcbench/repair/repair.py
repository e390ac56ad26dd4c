"""A repair of length collapse, as applied in a cell, and its name in results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from lcbench.tempscale.policy import BASELINE, ModelShape, Policy, Role

# mteb names the folder of an experiment by its parts, or if that is longer by a digest of them.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Repair:
    """What is tried against length collapse; without anything it is the baseline.

    Attributes:
        policy: which temperature a text gets.
    """

    policy: Policy = BASELINE

    @property
    def parts(self) -> Mapping[str, str]:
        """What differs from the baseline, by key, in canonical form: mteb's `experiment_kwargs`."""
        return {} if self.policy.is_baseline else {"tau": self.policy.canonical}

    @property
    def is_baseline(self) -> bool:
        """Whether nothing is tried."""
        return not self.parts

    @property
    def canonical(self) -> str:
        """The name that results have: the same for the same repair however it was written."""
        return self.policy.canonical

    @property
    def depends_on_role(self) -> bool:
        """Whether queries get something else than documents."""
        roles: tuple[Role, ...] = ("query", "document")
        return len({self.policy.for_role(role) for role in roles}) > 1

    def resolve(self, shape: ModelShape) -> Repair:
        """Return what it comes to for a model: a simpler one where it can be.

        Raises:
            RequestError: it names a layer or a length that the model does not have.
        """
        return Repair(self.policy.resolve(shape))

    def __str__(self) -> str:
        return f"τ = {self.canonical}"


NO_REPAIR = Repair()


def experiment_folder(parts: Mapping[str, str]) -> str:
    """Return what mteb calls the folder of an experiment: its parts, or a digest of them."""
    name = "__".join(f"{key}_{value}" for key, value in sorted(parts.items()))
    if len(name) <= _LONGEST_NAME:
        return name
    return f"exp_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
