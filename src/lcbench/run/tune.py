"""Makes temperatures by layer, head and length for a model, and writes them to a file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lcbench.errors import InjectionError, RequestError
from lcbench.hub.models import LocatedModel, ModelSettings, locate
from lcbench.hub.windows import window_of
from lcbench.measures.inside import LENGTHS, InsideOptions, choose
from lcbench.repair.repair import Repair
from lcbench.run import checks
from lcbench.run.engines import proofs_of
from lcbench.run.measuring import load_texts
from lcbench.run.reader import WINDOW_WITHOUT_LIMIT, counter_of, reader_of
from lcbench.system.files import check_writable
from lcbench.system.hardware import devices_of
from lcbench.system.observer import Observer
from lcbench.system.quiet import quiet_libraries
from lcbench.system.words import clock, several
from lcbench.tasks.reference import DOCSTRINGS, read_reference, texts_of
from lcbench.tempscale.heads import (
    HeadTemperatures,
    Matrix,
    temperatures_of,
    write_temperatures,
)
from lcbench.tempscale.policy import ByHead
from lcbench.tuning.options import TuneOptions
from lcbench.tuning.search import Searched, Space, require_optuna, search

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from lcbench.tasks.source import Part
    from lcbench.tempscale.policy import Policy, Role
    from lcbench.tuning.entropy import Matched

# A search varies temperatures up to a length that this share of its documents does not exceed.
_SHARE_IN_RANGE = 0.95


@dataclass(frozen=True)
class Sources:
    """Where texts and models come from.

    Attributes:
        parts: tasks whose documents are read; none: docstrings.
        mirror: a folder that is searched first, or None.
        offline: whether the network must not be used.
        unverified_data: whether a plain folder of the mirror may hold other data than mteb
            describes.
    """

    parts: tuple[Part, ...] = ()
    mirror: Path | None = None
    offline: bool = False
    unverified_data: bool = False


@dataclass(frozen=True)
class Tuned:
    """Temperatures that were made.

    Attributes:
        path: their file.
        temperatures: its content.
        lines: a summary, in sentences.
    """

    path: Path
    temperatures: HeadTemperatures
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class _Made(NamedTuple):
    """What a method returns.

    Attributes:
        matrices: temperatures by layer and head for each length; one if `lengths` is empty.
        lengths: in tokens.
        facts: how they were made.
        lines: a summary, in sentences.
    """

    matrices: tuple[Matrix, ...]
    lengths: tuple[int, ...]
    facts: dict[str, Any]
    lines: tuple[str, ...]


def tune(
    model: ModelSettings,
    out: Path,
    options: TuneOptions,
    sources: Sources,
    observer: Observer,
    *,
    device: str = "auto",
) -> Tuned:
    """Make temperatures for a model, and write them to a file.

    Args:
        model: the model.
        out: the file; it must not exist.
        options: how.
        sources: where texts and the model come from.
        observer: receives progress.
        device: that the model runs on.

    Raises:
        RequestError: the model or data is missing, the texts are too few or too short, the model's
            layers cannot have temperatures of their own, Optuna is missing, or `out` exists.
        StorageError: `out` cannot be written.
    """
    from lcbench.encode.load import load

    if out.exists():
        raise RequestError(f"out={out} already exists; choose another file.")
    if options.method == "search":
        require_optuna()
    located = locate(model, mirror=sources.mirror, offline=sources.offline)
    out.parent.mkdir(parents=True, exist_ok=True)
    check_writable(out.parent)
    quiet_libraries()
    texts, name = _texts(sources, located, observer)
    with observer.doing(f"loading {located.name}"):
        loaded = load(located, device=devices_of(device)[0], dtype="float32")
    prompts = _prompts(located, loaded)
    layers, heads = _layers_and_heads(located, loaded)
    began = time.monotonic()
    if options.method == "entropy":
        made = _match(loaded, prompts["document"], texts, options, observer)
    else:
        made = _search(loaded, prompts, layers, heads, texts, options, observer)
    facts = {
        "by": "lcbench tune",
        "method": options.method,
        "texts_of": name,
        "window": located.shape.window,
        "seed": options.seed,
        **made.facts,
    }
    temperatures = temperatures_of(
        HeadTemperatures(
            located.name, located.revision, made.matrices, made.lengths, facts
        ).content()
    )
    write_temperatures(temperatures, out)
    seconds = clock(time.monotonic() - began)
    return Tuned(out, temperatures, (*made.lines, f"Written to {out} after {seconds}."))


def _layers_and_heads(located: LocatedModel, loaded: SentenceTransformer) -> tuple[int, int]:
    """Return their numbers, once it is proven that layers can have temperatures of their own.

    Raises:
        RequestError: they cannot, since they share weights, or their number is not known.
    """
    from lcbench.tempscale.transformer import shape_of

    shape = shape_of(loaded)
    layers, heads = shape.layers, shape.heads
    if layers is None or heads is None:
        raise RequestError(
            f"{located.name}: its configuration does not state its layers and heads, so they "
            "cannot have temperatures of their own."
        )
    matrix = tuple((0.9 - 0.1 * layer / layers,) * heads for layer in range(layers))
    try:
        proofs_of(loaded, [Repair(ByHead(HeadTemperatures("", None, (matrix,))))])
    except InjectionError as error:
        raise RequestError(
            f"{located.name}: its layers cannot have temperatures of their own ({error})"
        ) from error
    return layers, heads


def _match(
    loaded: SentenceTransformer,
    prompt: str,
    texts: Sequence[str],
    options: TuneOptions,
    observer: Observer,
) -> _Made:
    """Match entropies."""
    from lcbench.tuning.entropy import HIGHEST, LOWEST, match_entropy

    window = window_of(loaded) or WINDOW_WITHOUT_LIMIT
    (framed,) = _lengths(loaded, ["a"], prompt)
    room = window - (framed - counter_of(loaded)(["a"])[0])
    asked = InsideOptions(texts=options.count, lengths=options.lengths, seed=options.seed)
    chosen = choose(texts, counter_of(loaded), window, room, asked)
    began, at = time.monotonic(), "the shortest length"

    def line() -> str:
        return f"matching entropies: {at} … {clock(time.monotonic() - began)}"

    def on_layer(tokens: int, layer: int) -> None:
        nonlocal at
        at = f"{tokens} tokens, layer {layer}"

    with observer.live(line):
        found: Matched = match_entropy(
            loaded, chosen, role="document", prompt=prompt, on_layer=on_layer
        )
    first, last = found.lengths[0], found.lengths[-1]
    taus = np.array(found.matrices[-1])
    lines = [
        f"Entropies of {taus.size} heads at {', '.join(map(str, found.lengths[1:]))} tokens are "
        f"those at {first} tokens, over {len(chosen.texts)} texts; at {last} tokens τ is from "
        f"{taus.min():.3f} to {taus.max():.3f} (median {np.median(taus):.3f})."
    ]
    if found.unmatched:
        lines.append(
            f"{several(found.unmatched, 'temperature')} at an end of the range from {LOWEST:g} to "
            f"{HIGHEST:g}, where the entropy still differs."
        )
    facts = {"texts": len(chosen.texts), "unmatched": found.unmatched}
    notes = [chosen.note] if chosen.note else []
    return _Made(found.matrices, found.lengths, facts, (*notes, *lines))


def _search(
    loaded: SentenceTransformer,
    prompts: Mapping[Role, str],
    layers: int,
    heads: int,
    texts: Sequence[str],
    options: TuneOptions,
    observer: Observer,
) -> _Made:
    """Search with pseudo-queries."""
    from lcbench.tuning.pairs import pairs_of

    pairs = pairs_of(texts)
    order = np.random.default_rng(options.seed).permutation(len(pairs))
    pairs = [pairs[i] for i in order[: options.count]]
    read = _lengths(loaded, [pair.document for pair in pairs], prompts["document"])
    lengths, line_of_lengths = _range(read, options)
    space = Space(layers, heads, lengths, options.search.heads)
    done = total = 0
    began = time.monotonic()

    def line() -> str:
        return f"trial {done} of {total or '…'} … {clock(time.monotonic() - began)}"

    def on_trial(number: int, of: int) -> None:
        nonlocal done, total
        done, total = number, of

    with reader_of(loaded, "", observer) as reader, observer.live(line):

        def embed(policy: Policy, some: Sequence[str], role: Role) -> NDArray[np.float32]:
            found = reader.encoder_of(Repair(policy)).embed(some, role, prompts[role])
            unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
            return unit

        found = search(embed, pairs, space, options.search, options.seed, on_trial)
    facts = {
        **asdict(options.search),
        "pairs": found.pairs,
        "trials": found.trials,
        "ndcg_at_10": found.baseline,
        "gain": asdict(found.gain),
        "best_on_all": None if found.helps else found.tried,
    }
    return _Made(found.matrices, found.lengths, facts, (*line_of_lengths, *_sentences(found)))


def _range(read: Sequence[int], options: TuneOptions) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the lengths between which temperatures may change, and a sentence about them.

    Args:
        read: tokens that the model reads of each document.
        options: of the request.

    Raises:
        RequestError: no document is so long as the longest of the requested lengths.
    """
    if not options.search.by_length or not read:
        return (), ()
    if options.lengths is not None:
        first, last = options.lengths[0], options.lengths[-1]
        if last > max(read):
            raise RequestError(
                f"traced_lengths={list(options.lengths)}: the model reads at most {max(read)} "
                "tokens of a document: take longer texts, or shorter traced_lengths."
            )
        return (first, last), (f"τ may depend on length from {first} to {last} tokens.",)
    first = LENGTHS[0]
    last = int(np.quantile(read, _SHARE_IN_RANGE, method="inverted_cdf"))
    most = f"{_SHARE_IN_RANGE * 100:.0f} % of the documents have at most {last} tokens"
    if last <= first:
        return (), (f"τ does not depend on length: {most}.",)
    return (first, last), (f"τ may depend on length from {first} to {last} tokens: {most}.",)


def _sentences(found: Searched) -> tuple[str, ...]:
    gain = found.gain
    lines = [
        f"{found.trials} trials on {found.pairs} pseudo-queries (nDCG@10 {found.baseline:.3f} at "
        f"τ = 1). On held-out pairs, the temperatures chosen on the others change it by "
        f"{gain.value:+.4f} (95 % interval {gain.low:+.4f} to {gain.high:+.4f})."
    ]
    if found.helps:
        taus = np.array(found.matrices)
        lines.append(f"τ is from {taus.min():.3f} to {taus.max():.3f}.")
    else:
        lines.append("That is no significant gain: all temperatures are 1, the baseline.")
    return tuple(lines)


def _texts(sources: Sources, located: LocatedModel, observer: Observer) -> tuple[list[str], str]:
    """Return distinct texts, and a name with a digest of them."""
    if not sources.parts:
        with observer.doing("reading docstrings"):
            docstrings = read_reference(DOCSTRINGS)
            return texts_of(docstrings), docstrings.name
    checks.fetch_missing(sources.parts, sources.mirror, observer, offline=sources.offline)
    found: dict[str, None] = {}
    for part in sources.parts:
        with observer.doing(f"loading the texts of {part.name}"):
            found |= dict.fromkeys(_documents(part.at(located.shape.window), sources))
    names = ", ".join(part.name for part in sources.parts)
    digest = hashlib.sha256("\0".join(found).encode()).hexdigest()[:8]
    return list(found), f"{names}-{digest}"


def _documents(part: Part, sources: Sources) -> list[str]:
    """Return the documents of a task that are not empty."""
    task, texts = load_texts(part, sources.mirror, unverified_data=sources.unverified_data)
    task.unload_data()
    return [text for text in texts if text.strip()]


def _prompts(located: LocatedModel, loaded: SentenceTransformer) -> dict[Role, str]:
    """Return the prompts of a model of the user's own that has some, as runs have by default."""
    from lcbench.encode.prompts import prompts_by_role

    if not (located.settings.is_custom and located.has_prompts):
        return {"query": "", "document": ""}
    return prompts_by_role(loaded)


def _lengths(loaded: SentenceTransformer, texts: Sequence[str], prompt: str) -> list[int]:
    """Return the tokens that a model reads of each document, its prompt among them."""
    from lcbench.encode.tokens import Tokenizer

    return [one.length for one in Tokenizer(loaded, "document").tokenize(texts, prompt)]
