"""Reads the texts of a task with a loaded model, for measurements and figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from lcbench.errors import InjectionError
from lcbench.hub.windows import window_of
from lcbench.measures.collapse import Embeddings, measure, prepare
from lcbench.measures.figures import INNER, Number, Subject
from lcbench.measures.inside import Chosen, Inside, InsideOptions, choose
from lcbench.measures.weighting import pools_by_mean
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.run.figures import word_vectors
from lcbench.system.words import clock, gib

if TYPE_CHECKING:
    import numpy as np
    from mteb.models.model_meta import ModelMeta
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.encoder import Encoder
    from lcbench.hub.judgments import Judgments
    from lcbench.measures.collapse import Collapse, CountTokens, Options, Prepared
    from lcbench.repair.correction import Correction
    from lcbench.repair.fit import Fitted
    from lcbench.system.observer import Observer
    from lcbench.tempscale.policy import Role

    Matrix = NDArray[np.float32]

WINDOW_WITHOUT_LIMIT = 512
"""Tokens read by a model without a window of its own (T5), as in the synthetic tasks."""

# Most memory for embeddings that are measured without being kept.
_STORE_BYTES = 2**28


class Watch:
    """Shows on the screen how many texts have been encoded or traced."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._texts = 0

    def on_progress(self, texts: int, tokens: int) -> None:
        """Count the texts of a batch."""
        self._texts += texts

    def on_text(self) -> None:
        """Count a text."""
        self._texts += 1

    @contextmanager
    def showing(self, what: str, total: int) -> Iterator[None]:
        """Show a progress line while the context lasts.

        Args:
            what: what happens to the texts.
            total: number of texts.
        """
        self._texts, began = 0, time.monotonic()

        def line() -> str:
            passed = clock(time.monotonic() - began)
            return f"{what}: {self._texts:,} of {total:,} texts … {passed}"

        with self._observer.live(line):
            yield


@dataclass(frozen=True)
class Reader:
    """A model that reads the texts of a task.

    Attributes:
        name: name of the model on the screen.
        loaded: the model.
        encoder_of: returns an encoder under a repair, which does not apply its correction.
        copy: returns the model without any repair, for traces; nothing may be encoded meanwhile.
        role: role of the texts; None: neither queries nor documents.
        prompt: prompt of each text.
        query_prompt: prompt of each query.
        watch: shows progress.
    """

    name: str
    loaded: SentenceTransformer
    encoder_of: Callable[[Repair], Encoder]
    copy: Callable[[], SentenceTransformer]
    role: Role | None
    prompt: str
    query_prompt: str
    watch: Watch

    @property
    def window(self) -> int:
        """Most tokens that the model reads of a text, with special tokens and the prompt."""
        return window_of(self.loaded) or WINDOW_WITHOUT_LIMIT

    @property
    def room(self) -> int:
        """Most tokens that the model reads of a text, without special tokens and the prompt."""
        (read,) = self.encoder_of(NO_REPAIR).lengths(["a"], self.prompt, self.role)
        return self.window - (read - self.count_tokens(["a"])[0])

    @property
    def count_tokens(self) -> CountTokens:
        """Counts the tokens of texts, without special tokens and truncation."""
        return counter_of(self.loaded)

    def embed(self, repair: Repair, texts: Sequence[str], what: str = "") -> Matrix:
        """Return embeddings of texts under a repair without its correction.

        Args:
            repair: the repair.
            texts: the texts.
            what: what the screen calls it; by default the repair.

        Returns:
            Shape (texts, dimensions).
        """
        with self.watch.showing(f"{self.name}, {what or repair}, encoding", len(texts)):
            return self.encoder_of(repair).embed(list(texts), self.role, self.prompt)

    def embed_queries(self, repair: Repair, texts: Sequence[str], what: str = "") -> Matrix:
        """Return embeddings of queries, as `embed`."""
        with self.watch.showing(f"{self.name}, {what or repair}, encoding", len(texts)):
            return self.encoder_of(repair).embed(list(texts), "query", self.query_prompt)


@contextmanager
def reader_of(
    loaded: SentenceTransformer,
    name: str,
    observer: Observer,
    prompts: Mapping[Role, str] = MappingProxyType({}),
) -> Iterator[Reader]:
    """Yield a reader of documents for a loaded model, which is restored at the end.

    Args:
        loaded: the model.
        name: name of the model on the screen.
        observer: receives progress.
        prompts: prompts of documents and queries, none by default.
    """
    from lcbench.encode.encoder import Encoder
    from lcbench.encode.engine import Engine, Identity
    from lcbench.encode.forward import Forward
    from lcbench.encode.store.shelf import Store

    watch = Watch(observer)
    identity = Identity(name, "", window_of(loaded), str(loaded.dtype))
    engines: list[Engine] = []

    def end() -> SentenceTransformer:
        while engines:
            engines.pop().close()
        return loaded

    with closing(Store(None, _STORE_BYTES, observer.warn)) as store:

        def encoder_of(repair: Repair) -> Encoder:
            if not engines:
                forward = Forward(loaded.eval())
                engines.append(Engine(forward, store, identity, on_progress=watch.on_progress))
            # Its similarity is not asked for.
            return Encoder(engines[0].at(repair), cast("ModelMeta", None))

        try:
            yield Reader(
                name=name.rpartition("/")[2],
                loaded=loaded,
                encoder_of=encoder_of,
                # The engine restores the model, and another one takes its place when it is needed.
                copy=end,
                role="document",
                prompt=prompts.get("document", ""),
                query_prompt=prompts.get("query", ""),
                watch=watch,
            )
        finally:
            end()


class EmbeddingsReader:
    """Measures the embeddings of a task's texts under repairs.

    Texts are encoded once for all repairs that differ in their correction alone.
    """

    def __init__(
        self,
        reader: Reader,
        texts: Sequence[str],
        options: Options,
        judgments: Judgments | None = None,
        without_judgments: str = "",
    ) -> None:
        """Choose the texts.

        Args:
            reader: reader of the texts.
            texts: the task's texts, none of them empty.
            options: sizes of the measurement.
            judgments: relevant documents; None: retrieval is not measured.
            without_judgments: why there are none, for a note in the measurement.

        Raises:
            RequestError: texts are too few, too short, or empty.
        """
        self._reader = reader
        self.prepared: Prepared = prepare(
            texts, reader.count_tokens, reader.room, options, judgments, without_judgments
        )
        self._encoded: dict[Repair, tuple[Matrix, Matrix | None]] = {}
        self._named: dict[tuple[Repair, str], tuple[list[str], Matrix]] = {}
        self._baseline: Embeddings | None = None

    def measure(self, repair: Repair) -> tuple[Collapse, dict[str, Any] | None]:
        """Return a measurement, and on what its correction was fitted (None without one)."""
        if self._baseline is None:
            self._baseline, _ = self._embeddings(NO_REPAIR)
        if repair.is_baseline:
            return measure(self.prepared, self._baseline), None
        embeddings, fitted = self._embeddings(repair)
        return measure(self.prepared, embeddings, self._baseline), fitted

    def _embeddings(self, repair: Repair) -> tuple[Embeddings, dict[str, Any] | None]:
        prepared, reader = self.prepared, self._reader
        rows, queries = self._rows(repair.encoding)
        fitted: Fitted | None = None
        record: dict[str, Any] | None = None
        if repair.correction is not None:
            fitted, record = self._fitted(repair, repair.correction)

        def corrected(rows: Matrix, texts: Sequence[str], role: Role | None, prompt: str) -> Matrix:
            if fitted is None:
                return rows
            lengths = None
            if fitted.by_length:
                lengths = reader.encoder_of(repair.encoding).lengths(texts, prompt, role)
            return fitted.apply(rows, lengths)

        return (
            Embeddings(
                prepared,
                lambda texts: corrected(rows, texts, reader.role, reader.prompt),
                None
                if queries is None
                else lambda texts: corrected(queries, texts, "query", reader.query_prompt),
                by_mean=pools_by_mean(reader.loaded),
            ),
            record,
        )

    def _rows(self, encoding: Repair) -> tuple[Matrix, Matrix | None]:
        """Return the embeddings of all texts and of the queries, as the encoder returns them."""
        if encoding not in self._encoded:
            search = self.prepared.search
            queries = None
            if search is not None:
                queries = self._reader.embed_queries(encoding, search.queries)
            self._encoded[encoding] = self._reader.embed(encoding, self.prepared.texts), queries
        return self._encoded[encoding]

    def _fitted(self, repair: Repair, correction: Correction) -> tuple[Fitted, dict[str, Any]]:
        """Fit a correction on the set of texts that it names, or else on the whole texts."""
        from lcbench.repair.fit import fit
        from lcbench.score.correct import distinct_texts, record_of_fit
        from lcbench.tasks.reference import texts_of

        reader, encoding = self._reader, repair.encoding
        if correction.on is None:
            what, texts = "the measured whole texts", self.prepared.whole_texts
            place = {text: at for at, text in enumerate(self.prepared.texts)}
            rows = self._rows(encoding)[0][[place[text] for text in texts]]
        else:
            what = correction.on.name
            if (encoding, what) not in self._named:
                texts, _ = distinct_texts(texts_of(correction.on))
                self._named[encoding, what] = texts, reader.embed(encoding, texts)
            texts, rows = self._named[encoding, what]
        lengths = None
        if correction.by_length:
            lengths = reader.encoder_of(encoding).lengths(texts, reader.prompt, reader.role)
        fitted = fit(correction, rows, lengths)
        return fitted, record_of_fit(correction, fitted, what, texts)


class InsideReader:
    """Measures attention and signal inside a model under repairs, one text at a time."""

    def __init__(
        self, reader: Reader, texts: Sequence[str], options: InsideOptions, observer: Observer
    ) -> None:
        """Choose the texts.

        Raises:
            RequestError: a length is beyond the window, or too few texts are as long.
        """
        from lcbench.measures.trace import memory_needed

        self._reader, self._options = reader, options
        self.chosen: Chosen = choose(
            texts, reader.count_tokens, reader.window, reader.room, options
        )
        self._copy = reader.copy()
        longest = self.chosen.lengths[-1]
        observer.say(
            f"attention of texts of {longest:,} tokens takes up to "
            f"{gib(memory_needed(self._copy, longest))} GiB, besides the model",
            dim=True,
        )

    def measure(self, repair: Repair) -> Inside:
        """Return a measurement.

        Raises:
            InjectionError: the repair does not suit the model, or attention that it changes cannot
                be measured.
        """
        from lcbench.measures.look import measure_inside

        chosen, reader = self.chosen, self._reader
        total = len(chosen.texts) * len(chosen.lengths)
        try:
            with reader.watch.showing(f"{reader.name}, {repair}, looking inside", total):
                return measure_inside(
                    self._copy,
                    chosen,
                    repair,
                    self._options,
                    role=reader.role,
                    prompt=reader.prompt,
                    on_text=reader.watch.on_text,
                )
        except InjectionError as error:
            if not repair.changes:
                raise
            raise InjectionError(
                f"attention cannot be measured inside the model under {repair}, which changes it "
                f"otherwise than by a temperature; embeddings can be measured ({error})"
            ) from error


def subject_of(reader: Reader, repairs: Sequence[Repair], number: Number) -> Subject:
    """Return a reader's model under several repairs, as a figure of the paper takes it.

    Args:
        reader: reader of the texts.
        repairs: the baseline first; corrections are not applied.
        number: number of the figure.
    """
    from lcbench.measures.look import Traced

    named = {str(one): one for one in repairs}
    what = f"Figure {number}, {{}}".format
    traced = None
    if number in INNER:
        traced = Traced(reader.copy(), named, reader.window, reader.role, reader.prompt)
    return Subject(
        repairs=tuple(named),
        embed=lambda repair, texts: reader.embed(named[repair], texts, what(repair)),
        word_vectors=lambda texts: word_vectors(reader.loaded, texts),
        count_tokens=reader.count_tokens,
        room=reader.room,
        window=reader.window,
        embed_queries=lambda repair, texts: reader.embed_queries(
            named[repair], texts, what(repair)
        ),
        traced=traced,
        by_mean=pools_by_mean(reader.loaded),
    )


def counter_of(loaded: SentenceTransformer) -> CountTokens:
    """Return a function that counts tokens, without special tokens and truncation."""
    tokenizer: Any = loaded.tokenizer

    def count(texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        found = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)
        return [len(ids) for ids in found["input_ids"]]

    return count
