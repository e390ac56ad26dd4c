"""Look into a model: attention and signal by layer, head and length, under a temperature policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lcbench.encode.tokens import Tokenizer
from lcbench.hub.windows import set_window
from lcbench.measures.attention import HeadMeasures, measure_heads
from lcbench.measures.bounds import Norms, norms_of
from lcbench.measures.inside import (
    OF_HEADS,
    Chosen,
    Head,
    Inside,
    InsideMeasure,
    InsideOptions,
    by_tokens,
    shares_of,
)
from lcbench.measures.signal import stream_rows
from lcbench.measures.trace import Attended, Trace, log_ratio, trace
from lcbench.repair.change import changed
from lcbench.tempscale.transformer import find_transformer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.repair.repair import Repair
    from lcbench.tempscale.policy import Role


def measure_inside(
    model: Any,
    chosen: Chosen,
    repair: Repair,
    options: InsideOptions,
    *,
    role: Role | None = None,
    prompt: str = "",
    layers: Sequence[int] | None = None,
    memory: float | None = None,
    on_text: Callable[[], None] = lambda: None,
) -> Inside:
    """Measure attention and signal of a model on texts cut to several lengths.

    Args:
        model: a `SentenceTransformer`, on eager or sdpa attention.
        chosen: the texts.
        repair: applied to the model; a correction of its embeddings changes nothing inside.
        options: what is measured.
        role: whose texts these are, for a policy by role.
        prompt: before each text.
        layers: layers to measure, from 0; None: all.
        memory: the most memory in GiB that attention weights may take; None: that of the machine.
        on_text: called after each text of each length.

    Raises:
        InjectionError: the model has no attention, or none that can be measured.
        RequestError: a text's attention weights need more memory than there is.
    """
    measured = _Measured(options.measures, len(chosen.lengths), len(chosen.texts))

    def heads_of(attended: Attended) -> HeadMeasures:
        return measure_heads(attended.observation)

    # The longest first: what cannot be held is known before anything is measured.
    for at, tokens in reversed(list(enumerate(chosen.lengths))):
        with cut(model, tokens):
            ids = [
                one.ids.tolist() for one in Tokenizer(model, role).tokenize(chosen.texts, prompt)
            ]
        with changed(model, repair.changes):
            for one in trace(
                model,
                ids,
                repair.policy,
                heads_of,
                role=role,
                layers=layers,
                memory=memory,
                streams="signal" in options.measures,
            ):
                measured.add(at, one)
                if one.layer == (layers or (0,))[0]:
                    on_text()
    return measured.summary(chosen, options)


@dataclass(frozen=True)
class Traced:
    """A model into which figures look.

    Attributes:
        model: a `SentenceTransformer`, on eager or sdpa attention.
        repairs: repairs by their names.
        window: most tokens that it reads of a text.
        role: whose texts are read, for a policy by role.
        prompt: before each text.
    """

    model: Any
    repairs: Mapping[str, Repair]
    window: int
    role: Role | None = None
    prompt: str = ""

    @property
    def last_layer(self) -> int:
        """Number of the last layer."""
        return int(find_transformer(self.model).config.num_hidden_layers) - 1

    def look(
        self,
        repair: str,
        chosen: Chosen,
        options: InsideOptions,
        layers: Sequence[int] | None = None,
    ) -> Inside:
        """Measure what happens inside the model under a repair (`measure_inside`)."""
        return measure_inside(
            self.model,
            chosen,
            self.repairs[repair],
            options,
            role=self.role,
            prompt=self.prompt,
            layers=layers,
        )

    def sigma_a(self, repair: str, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the mean σ_a of the heads of the last layer, shape (texts,)."""
        ids = [
            one.ids.tolist()
            for one in Tokenizer(self.model, self.role).tokenize(texts, self.prompt)
        ]

        def mean(attended: Attended) -> float:
            return float(measure_heads(attended.observation).sigma_a.mean())

        applied = self.repairs[repair]
        with changed(self.model, applied.changes):
            found = trace(
                self.model, ids, applied.policy, mean, role=self.role, layers=[self.last_layer]
            )
            return np.array([one.measured for one in found])


class _Measured:
    """Values of every text, by layer, part and name, at every length."""

    def __init__(self, measures: Sequence[InsideMeasure], lengths: int, texts: int) -> None:
        self._measures = measures
        self._shape = (lengths, texts)
        self._layers: dict[tuple[int, str, str], NDArray[np.float64]] = {}
        self._heads: dict[tuple[int, str], NDArray[np.float64]] = {}
        self._taus: dict[int, float] = {}
        self._norms: dict[int, Norms] = {}
        self._unbounded: set[int] = set()

    def add(self, at: int, one: Trace[HeadMeasures]) -> None:
        """Take what one layer computed for a text of a length."""
        self._taus.setdefault(one.layer, one.tau)
        if "attention" in self._measures:
            for name in OF_HEADS:
                of_heads = getattr(one.measured, name)
                self._put(at, one, "attention", name, float(of_heads.mean()))
                key = (one.layer, name)
                if key not in self._heads:
                    self._heads[key] = np.zeros((self._shape[0], len(of_heads)))
                self._heads[key][at] += of_heads / self._shape[1]
        if one.stream is None:
            return
        for row in stream_rows(one.stream):
            self._put(at, one, row["part"], row["step"], row["log_ratio"])
        maps = one.stream.projections
        if maps is None:
            self._unbounded.add(one.layer)
            return
        if one.layer not in self._norms:
            self._norms[one.layer] = norms_of(maps)
        bounds = self._norms[one.layer].bounds(one.measured.sigma_a)
        for name, value in {"attention": log_ratio(maps.leaving, maps.entering), **bounds}.items():
            self._put(at, one, "bound", name, value)

    def _put(self, at: int, one: Trace[HeadMeasures], part: str, name: str, value: float) -> None:
        key = (one.layer, part, name)
        if key not in self._layers:
            self._layers[key] = np.full(self._shape, np.nan)
        self._layers[key][at, one.text] = value

    def summary(self, chosen: Chosen, options: InsideOptions) -> Inside:
        shares = shares_of(len(chosen.texts), options)
        layers = [
            by_tokens(layer, part, name, values, shares)
            for (layer, part, name), values in sorted(
                self._layers.items(), key=lambda one: one[0][0]
            )
        ]
        heads = [
            Head(
                layer,
                head,
                {name: tuple(map(float, self._heads[layer, name][:, head])) for name in OF_HEADS},
            )
            for layer in sorted({layer for layer, _ in self._heads})
            for head in range(self._heads[layer, OF_HEADS[0]].shape[1])
        ]
        notes = [chosen.note] if chosen.note else []
        if self._unbounded:
            notes.append(
                "values or outputs of attention are not those of plain linear maps, so that there "
                "are no bounds"
            )
        return Inside(
            len(chosen.texts),
            chosen.lengths,
            tuple(layers),
            tuple(heads),
            tuple(self._taus[layer] for layer in sorted(self._taus)),
            tuple(notes),
        )


@contextmanager
def cut(model: Any, tokens: int) -> Iterator[None]:
    """Truncate texts to a number of tokens, special ones included, while the context lasts."""
    before = model.max_seq_length
    set_window(model, tokens)
    try:
        yield
    finally:
        set_window(model, before)
