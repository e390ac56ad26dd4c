"""Makes temperatures by layer, head and length for a model, and writes them to a file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lcbench.errors import RequestError
from lcbench.hub.models import LocatedModel, ModelSettings, locate
from lcbench.hub.windows import window_of
from lcbench.measures.inside import LENGTHS, InsideOptions, choose
from lcbench.repair.repair import Repair
from lcbench.run import checks
from lcbench.run.engines import engine_of, load_for
from lcbench.run.reader import WINDOW_WITHOUT_LIMIT, counter_of
from lcbench.system import hardware
from lcbench.system.files import check_writable
from lcbench.system.hardware import devices_of
from lcbench.system.observer import Observer
from lcbench.system.quiet import quiet_libraries
from lcbench.system.words import clock, several
from lcbench.tasks.reference import DOCSTRINGS, read_reference, texts_of
from lcbench.tempscale.heads import HeadTemperatures, temperatures_of, write_temperatures
from lcbench.tuning import METHODS
from lcbench.tuning.search import Searched, SearchOptions, Space, require_optuna, search

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from lcbench.tasks.source import Part
    from lcbench.tempscale.policy import Policy, Role
    from lcbench.tuning.entropy import Matched


# Embeddings that are kept during a search, for texts that several folds encode at a temperature.
_MEMORY_BYTES = 2**28


@dataclass(frozen=True)
class TuneOptions:
    """How temperatures are made.

    Attributes:
        method: one of `lcbench.tuning.METHODS`.
        texts: number of texts; None: that of the method.
        lengths: in tokens, special ones included, ascending; None: 64, 128, 256 and 512, as far as
            the window reaches.
        search: options of `search`.
        seed: of the choice of texts.
    """

    method: str = "entropy"
    texts: int | None = None
    lengths: tuple[int, ...] | None = None
    search: SearchOptions = field(default_factory=SearchOptions)
    seed: int = 0


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
        temperatures: what it holds.
        lines: what came of it, in sentences.
    """

    path: Path
    temperatures: HeadTemperatures
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


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
        RequestError: the model or data is missing, the texts are too few or too short, Optuna is
            missing, or `out` exists.
        StorageError: `out` cannot be written.
    """
    if out.exists():
        raise RequestError(f"out={out} already exists; choose another file.")
    if options.method == "search":
        require_optuna()
    located = locate(model, mirror=sources.mirror, offline=sources.offline)
    out.parent.mkdir(parents=True, exist_ok=True)
    check_writable(out.parent)
    quiet_libraries()
    texts, name = _texts(sources, located, observer)
    made: dict[str, Any] = {
        "by": "lcbench tune",
        "method": options.method,
        "texts_of": name,
        "window": located.shape.window,
        "seed": options.seed,
    }
    began = time.monotonic()
    matrices, lengths, facts, lines = _MAKERS[options.method](
        located, texts, options, observer, device
    )
    temperatures = temperatures_of(
        HeadTemperatures(located.name, located.revision, matrices, lengths, made | facts).content()
    )
    write_temperatures(temperatures, out)
    seconds = clock(time.monotonic() - began)
    return Tuned(out, temperatures, (*lines, f"Written to {out} after {seconds}."))


_Made = tuple[Any, tuple[int, ...], dict[str, Any], tuple[str, ...]]


def _match(
    located: LocatedModel,
    texts: Sequence[str],
    options: TuneOptions,
    observer: Observer,
    device: str,
) -> _Made:
    """Match entropies; return temperatures, lengths, how they were made, and sentences."""
    from lcbench.encode.load import load
    from lcbench.tuning.entropy import HIGHEST, LOWEST, match_entropy

    with observer.doing(f"loading {located.name}"):
        loaded = load(located, device=devices_of(device)[0], dtype="float32")
    prompt = _prompts(located, loaded)["document"]
    window = window_of(loaded) or WINDOW_WITHOUT_LIMIT
    room = window - _framing(loaded, prompt)
    count = options.texts or METHODS["entropy"]
    asked = InsideOptions(texts=count, lengths=options.lengths, seed=options.seed)
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
        f"{taus.min():.3f} to {taus.max():.3f}, in the middle {np.median(taus):.3f}."
    ]
    if found.unmatched:
        lines.append(
            f"{several(found.unmatched, 'temperature')} at the end of the range from {LOWEST:g} to "
            f"{HIGHEST:g}, where the entropy is still another."
        )
    facts = {"texts": len(chosen.texts), "unmatched": found.unmatched}
    return found.matrices, found.lengths, facts, (*([chosen.note] if chosen.note else []), *lines)


def _search(
    located: LocatedModel,
    texts: Sequence[str],
    options: TuneOptions,
    observer: Observer,
    device: str,
) -> _Made:
    """Search with pseudo-queries; return temperatures, lengths, how, and sentences."""
    from lcbench.encode.options import EngineSettings
    from lcbench.encode.prompts import no_prompt
    from lcbench.encode.store.shelf import Store
    from lcbench.results import provenance
    from lcbench.tempscale.transformer import shape_of
    from lcbench.tuning.pairs import pairs_of

    pairs = pairs_of(texts)
    order = np.random.default_rng(options.seed).permutation(len(pairs))
    pairs = [pairs[i] for i in order[: options.texts or METHODS["search"]]]
    engine_options = EngineSettings(device, batch_tokens=None, scoring=None, compile=False)
    devices = devices_of(device)
    with observer.doing(f"loading {located.name}"):
        loaded, notes = load_for(
            located, engine_options, dtype="float32", device=devices[0], observer=observer
        )
        facts = provenance.model_facts(located, loaded)
    shape = shape_of(loaded)
    if shape.layers is None or shape.heads is None:
        raise RequestError(
            f"{located.name}: its configuration does not state its layers and heads, so they "
            "cannot have temperatures of their own."
        )
    window = window_of(loaded) or WINDOW_WITHOUT_LIMIT
    within = options.lengths or tuple(one for one in LENGTHS if one <= window) or (window,)
    ends = (within[0], max(within[-1], window) if options.lengths is None else within[-1])
    asked = replace(options.search, seed=options.seed)
    lengths = ends if asked.by_length and ends[0] < ends[1] else ()
    space = Space(shape.layers, shape.heads, lengths, asked.heads)
    prompts = _prompts(located, loaded)
    done = total = 0
    began = time.monotonic()

    def line() -> str:
        return f"trial {done} of {total or '…'} … {clock(time.monotonic() - began)}"

    def on_trial(number: int, of: int) -> None:
        nonlocal done, total
        done, total = number, of

    engine = engine_of(
        located,
        loaded,
        facts,
        engine_options,
        Store(None, _MEMORY_BYTES, observer.warn),
        dtype="float32",
        devices=devices,
        prompt_of=no_prompt,
        on_progress=lambda texts, tokens: None,
        cores_left=hardware.cores,
        notes=notes,
    )

    def embed(policy: Policy, some: Sequence[str], role: Role) -> NDArray[np.float32]:
        found = engine.embed(Repair(policy), some, role, prompts[role]).embeddings
        unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit

    with closing(engine), observer.live(line):
        found = search(embed, pairs, space, asked, on_trial)
    made = {
        "pairs": found.pairs,
        "trials": found.trials,
        **{name: value for name, value in asdict(asked).items() if name not in ("seed", "trials")},
        "ndcg_at_10": found.baseline,
        "gain": asdict(found.gain),
        "best_on_all": None if found.helps else found.tried,
    }
    return found.matrices, found.lengths, made, _sentences(found)


_MAKERS = {"entropy": _match, "search": _search}


def _sentences(found: Searched) -> tuple[str, ...]:
    gain = found.gain
    lines = [
        f"{found.trials} trials on {found.pairs} pseudo-queries (nDCG@10 {found.baseline:.3f} at "
        f"τ = 1). On pairs that were held out, the temperatures chosen on the others change it by "
        f"{gain.value:+.4f} (95 % interval {gain.low:+.4f} to {gain.high:+.4f})."
    ]
    if found.helps:
        taus = np.array(found.matrices)
        lines.append(f"τ is from {taus.min():.3f} to {taus.max():.3f}.")
    else:
        lines.append("That is no gain to rely on: all temperatures are 1, the baseline.")
    return tuple(lines)


def _texts(sources: Sources, located: LocatedModel, observer: Observer) -> tuple[list[str], str]:
    """Return distinct texts, and what they are of, with a digest."""
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
    from lcbench.hub.contents import DataError, documents_in, load, refuse

    task = part.source.make(part)
    checks.find_data([task] if part.source.origin is None else [], sources.mirror)
    try:
        wrong = [one for one in load(task) if not one.is_tolerable]
        if wrong and not sources.unverified_data:
            raise refuse(wrong)
        texts = documents_in(task)
    except DataError as error:
        raise RequestError(str(error)) from error
    task.unload_data()
    return [text for text in texts if text.strip()]


def _prompts(located: LocatedModel, loaded: SentenceTransformer) -> dict[Role, str]:
    """Return the prompts of a model of the user's own that has some, as runs have by default."""
    from lcbench.encode.prompts import DOCUMENT_PROMPTS

    own = loaded.prompts if located.settings.is_custom and located.has_prompts else {}
    document = next((own[name] or "" for name in DOCUMENT_PROMPTS if own.get(name)), "")
    return {"query": own.get("query") or "", "document": document}


def _framing(loaded: SentenceTransformer, prompt: str) -> int:
    """Return how many tokens of a text are special ones, or of the prompt."""
    from lcbench.encode.tokens import Tokenizer

    (read,) = Tokenizer(loaded, "document").tokenize(["a"], prompt)
    return read.length - counter_of(loaded)(["a"])[0]
