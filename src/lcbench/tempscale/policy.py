"""Temperature policies: which τ a text gets, and the canonical form that names it in results.

Knows nothing of models; `inject` applies a policy to one.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lcbench.errors import RequestError

_EXAMPLES = "write a temperature (tau=0.8) or a list of them ('tau=[0.9,0.8]')"


@dataclass(frozen=True, order=True)
class Constant:
    """The same temperature for every text and layer: A = softmax(logits / tau)."""

    tau: float

    @property
    def canonical(self) -> str:
        """The shortest decimal form, without exponent: 0.80 is 0.8, 1.0 is 1."""
        return f"{Decimal(repr(self.tau)).normalize():f}"

    @property
    def is_baseline(self) -> bool:
        """Whether attention is unchanged."""
        return self.tau == 1


Policy = Constant
BASELINE: Policy = Constant(1.0)


def parse(value: Any) -> Policy:
    """Return the policy that a value of `tau=` stands for.

    Raises:
        RequestError: not a finite number above 0.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise RequestError(f"tau={value} is not a temperature; {_EXAMPLES}.") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"tau={value} is not a temperature; {_EXAMPLES}.")
    if not math.isfinite(value) or value <= 0:
        raise RequestError(
            f"tau={value} is not a temperature: it divides the attention logits and must be a "
            f"finite number above 0 (1 = unchanged); {_EXAMPLES}."
        )
    return Constant(float(value))


def parse_all(value: Any) -> tuple[Policy, ...]:
    """Return the policies of `tau=`, each once, in the order given, after the baseline.

    Raises:
        RequestError: one of them is not a policy, or the list is empty.
    """
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise RequestError(f"tau=[] asks for no temperature at all; {_EXAMPLES}.")
    return tuple(dict.fromkeys([BASELINE, *map(parse, values)]))
