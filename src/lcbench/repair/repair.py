"""A repair of length collapse, as applied in a cell, and its name in results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from lcbench.tempscale.policy import BASELINE, ModelShape, Policy, Role

# Maximum length of an experiment's folder name; mteb uses a digest for longer ones.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Repair:
    """A repair against length collapse; an empty one is the baseline.

    Attributes:
        policy: temperature policy.
    """

    policy: Policy = BASELINE

    @property
    def parts(self) -> Mapping[str, str]:
        """The differences from the baseline in canonical form: mteb's `experiment_kwargs`."""
        return {} if self.policy.is_baseline else {"tau": self.policy.canonical}

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline."""
        return not self.parts

    @property
    def canonical(self) -> str:
        """The name in results, which is the same however the repair was written."""
        return self.policy.canonical

    @property
    def depends_on_role(self) -> bool:
        """Whether queries are treated differently from documents."""
        roles: tuple[Role, ...] = ("query", "document")
        return len({self.policy.for_role(role) for role in roles}) > 1

    def resolve(self, shape: ModelShape) -> Repair:
        """Return the equivalent repair for a model, simplified if possible.

        Raises:
            RequestError: it names a layer or a length that the model does not have.
        """
        return Repair(self.policy.resolve(shape))

    def __str__(self) -> str:
        return f"τ = {self.canonical}"


NO_REPAIR = Repair()


def experiment_folder(parts: Mapping[str, str]) -> str:
    """Return mteb's folder name for an experiment: its parts, or a digest of them."""
    name = "__".join(f"{key}_{value}" for key, value in sorted(parts.items()))
    if len(name) <= _LONGEST_NAME:
        return name
    return f"exp_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
