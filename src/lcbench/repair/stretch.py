"""How the positions of a model are stretched over more tokens than it was made for: the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Method = Literal["window", "gp", "rp", "pi", "linear", "ntk", "yarn", "longrope", "selfextend"]

# LongEmbed's λ of NTK by factor (arXiv:2404.12096, Table 6).
_LONGEMBED_LAMBDA = {2: 3.0, 4: 5.0, 8: 10.0}


@dataclass(frozen=True)
class Stretch:
    """A way to read more tokens of a text than a model was made for.

    L is the number of positions that the model was made for, s = ⌈window / L⌉.

    Attributes:
        method: `window`: as many positions as there are; for absolute positions of token i, `gp`
            (grouped): row ⌊i/s⌋, `rp` (recurrent): row i mod L, `pi` (interpolated): row i/s,
            between two rows if it is a fraction; for rotary positions, `linear`: i/s, `ntk`: θ·λ,
            `yarn` (arXiv:2309.00071), `longrope`: the model's own factors for long texts,
            `selfextend` (arXiv:2401.01325).
        window: most tokens read of a text.
        start: L, where it is not all positions of the model.
        kept: for `pi`, whether texts of at most L tokens keep their rows, so that nothing changes
            for them.
        step: for `window`, the distance between the positions of tokens in texts of at most as many
            tokens as positions / step; None: 1.
        scale: λ of `ntk`; None: see `base_scale`.
        group: number of tokens that share a position in `selfextend`; None: s + 1.
        neighbors: distance from which on they do; None: ⌊L/s⌋.
    """

    method: Method
    window: int
    start: int | None = None
    kept: bool = False
    step: int | None = None
    scale: float | None = None
    group: int | None = None
    neighbors: int | None = None

    @property
    def products(self) -> int:
        """Products of queries and keys that each layer computes: three in SelfExtend."""
        return 3 if self.method == "selfextend" else 1

    @property
    def canonical(self) -> str:
        """The name in results; see `Part`."""
        return ",".join(f"{key}={value}" for key, value in self._options().items())

    def written(self) -> dict[str, Any]:
        """Return it as `extend=` has it, so that `parse` gives it back; JSON types only."""
        return self._options()

    def factor(self, start: int) -> int:
        """Return s = ⌈window / L⌉ for L = start."""
        return -(-self.window // start)

    def groups(self, start: int) -> tuple[int, int]:
        """Return the group and the neighbors of SelfExtend for L = start.

        By default they are LongEmbed's (arXiv:2404.12096, Table 6): s + 1 and ⌊L/s⌋.
        """
        factor = self.factor(start)
        return self.group or factor + 1, self.neighbors or max(1, start // factor)

    def reach(self, start: int) -> int:
        """Return the length up to which SelfExtend keeps all distances at most L = start."""
        group, neighbors = self.groups(start)
        return (start - neighbors) * group + neighbors

    def base_scale(self, start: int, dimensions: int) -> tuple[float, str]:
        """Return λ, which NTK multiplies θ by, and where it comes from.

        Args:
            start: L.
            dimensions: d, rotated dimensions of a head.
        """
        factor = self.factor(start)
        if self.scale is not None:
            return self.scale, "named"
        if factor in _LONGEMBED_LAMBDA:
            return _LONGEMBED_LAMBDA[factor], "LongEmbed, Table 6"
        return float(factor ** (dimensions / (dimensions - 2))), "s^(d/(d-2))"

    def _options(self) -> dict[str, Any]:
        scale = self.scale
        named = {
            "from": self.start,
            "short": "kept" if self.kept else self.step,
            "lambda": int(scale) if scale is not None and scale.is_integer() else scale,
            "group": self.group,
            "neighbors": self.neighbors,
        }
        given = {key: value for key, value in named.items() if value is not None}
        return {self.method: self.window, **given}
