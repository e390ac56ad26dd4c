"""`python -m lcbench.estimate`: how many cells, texts, tokens and hours a request comes to.

An estimate, made before anything is fetched or loaded: from what mteb states of its tasks, the
shape of the models, and a short measurement of this machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from lcbench.command import run_command, screen, warn
from lcbench.models import Dimensions, dimensions
from lcbench.tasks.registry import registry
from lcbench.tasks.sizes import Texts, rounded, texts_of
from lcbench.tasks.suites import DOCS_TASKS, SYNTHETIC_TASKS, Part, resolve_all
from lcbench.tempscale.policy import ModelShape

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.settings import Settings

# Of English, with MiniLM's tokenizer (the vocabulary of bge, gist and e5 too): 4.0 in QMSum's
# meetings, 4.2 in Banking77, 4.4 in STSBenchmark, 4.7 in MassiveIntent, 4.8 in Emotion. Docstrings,
# which are half code, have 3.2; other languages fewer too: German 2.6, Turkish 2.2, Russian 1.3
# (the messages of a program).
CHARACTERS_PER_TOKEN = 4.3
_SPECIAL_TOKENS = 2
# The part of the matrix product's rate that encoding comes to on a CPU: MiniLM reads 5,200 tokens/s
# of 512-token texts at best and 4,650 at large batches, where 167 GFLOP/s would allow 6,400.
_EFFICIENCY = 0.77
# Rows of the matrices that are multiplied, as many as a batch has tokens, and seconds for each.
_ROWS = {"cpu": 4096, "cuda": 65536}
_MEASURED_SECONDS = 0.5


@dataclass(frozen=True)
class Machine:
    """The machine that an estimate is for.

    Attributes:
        name: what it is, in words.
        device: that a run would use.
        dtype: of its weights.
    """

    name: str
    device: str
    dtype: str

    @property
    def efficiency(self) -> float | None:
        """The part of the matrix product's rate that encoding comes to; None: never measured."""
        return _EFFICIENCY if self.device == "cpu" else None


@dataclass(frozen=True)
class Estimate:
    """What a request comes to, results that are finished already included.

    Attributes:
        cells: all of them.
        models: how many.
        policies: how many temperatures or policies, the baseline among them.
        tasks: how many.
        texts: to be encoded: each different text once for each task, model and policy.
        tokens: of them, as far as the models read them.
        hours: of encoding.
        at_least: whether encoding takes longer than that by a factor that is not known.
        machine: that the hours are for, in words.
        unsized: tasks whose sizes are not known; they are in none of the numbers but the cells.
        unshaped: models whose shape is not known; they are in neither the tokens nor the hours.
        other_languages: whether there are texts in other languages than English.
    """

    cells: int
    models: int
    policies: int
    tasks: int
    texts: int
    tokens: int
    hours: float
    at_least: bool
    machine: str
    unsized: tuple[str, ...]
    unshaped: tuple[str, ...]
    other_languages: bool


def main() -> None:
    """Run the command line and end the process with its exit status."""
    # What is estimated is what `python -m lcbench` would run: its keys are those of that config.
    sys.exit(run_command("config", _job))


def _job(config: DictConfig) -> int:
    from lcbench.__main__ import compose_settings

    settings = compose_settings(config)
    for task in settings.left_out:
        warn(f"left out: {task}.")
    screen().print(describe(settings), soft_wrap=True, markup=False)
    return 0


def describe(settings: Settings) -> str:
    """Return what a request comes to, in a line, and in further lines what that leaves out.

    Measures this machine for a second or two, and imports torch for it.

    Raises:
        RequestError: the request is wrong.
    """
    return sentence(estimate(settings))


def sentence(one: Estimate) -> str:
    """Return an estimate in words: one line, and one for each thing that it leaves out."""
    cost = "tokens and hours unknown"
    if len(one.unshaped) < one.models:
        about = "at least" if one.at_least else "about"
        cost = (
            f"{rounded(one.tokens)} tokens, {about} {duration(one.hours)} of encoding "
            f"on this machine ({one.machine}), what is finished included"
        )
    lines = [
        f"{_several(one.cells, 'cell')} ({_several(one.models, 'model')} × "
        f"{_several(one.policies, 'temperature')} × {_several(one.tasks, 'task')}), "
        f"{rounded(one.texts)} texts, {cost}."
    ]
    if one.other_languages:
        lines.append("Texts in other languages are reckoned as English; they have more tokens.")
    if one.unsized:
        lines.append(f"Not counted, since their sizes are not known: {', '.join(one.unsized)}.")
    if one.unshaped:
        lines.append(
            "Tokens and hours are without those of models whose shape is not known: "
            f"{', '.join(one.unshaped)}."
        )
    return "\n".join(lines)


def estimate(settings: Settings) -> Estimate:
    """Return what a request comes to.

    Texts, tokens and hours are upper bounds in two ways: a text that two columns or two of mteb's
    tasks share counts twice, and texts are cut at the window by their average length alone. Hours
    are of encoding alone: no time for loading, scoring (logistic regression takes longer than
    encoding where the labels are many) or fetching is in them.

    Raises:
        RequestError: the request is wrong.
    """
    parts = resolve_all(settings.tasks, settings.protocol.splits, settings.protocol.subsets)
    stated = {name: texts_of(part, settings.docs) for name, part in parts.items()}
    unsized: dict[str, None] = {}
    machine = _machine(settings)
    cells = encoded = tokens = most_policies = 0
    seconds = 0.0
    unshaped = []
    for model in settings.models:
        known = dimensions(model)
        policies = len({policy.resolve(_shape(known)) for policy in settings.policies})
        most_policies = max(most_policies, policies)
        sizes = dict(stated)
        if known is not None:
            # The lengths of the synthetic tasks go by the window.
            docs = settings.docs.at(known.window)
            sizes |= {name: texts_of(parts[name], docs) for name in SYNTHETIC_TASKS & parts.keys()}
        texts = _distinct(text for size in sizes.values() for text in size or ())
        unsized |= {name: None for name, size in sizes.items() if size is None}
        cells += policies * len(parts)
        encoded += policies * sum(text.unique for text in texts)
        if known is None:
            unshaped.append(model.name)
            continue
        tokens += policies * sum(_tokens(text, known) for text in texts)
        rate = _matmul_rate(machine.device, machine.dtype, known.hidden)
        seconds += policies * _operations(texts, known) / (rate * (machine.efficiency or 1.0))
    return Estimate(
        cells=cells,
        models=len(settings.models),
        policies=most_policies,
        tasks=len(parts),
        texts=encoded,
        tokens=tokens,
        hours=seconds / 3600,
        at_least=machine.efficiency is None,
        machine=machine.name,
        unsized=tuple(unsized),
        unshaped=tuple(unshaped),
        other_languages=any(map(_has_other_languages, parts.values())),
    )


def duration(hours: float) -> str:
    """Return a time in words, in two digits: `5 minutes`, `3.5 hours`, `7,300 hours`."""
    minutes = hours * 60
    if minutes < 1:
        return "a minute"
    number, unit = (minutes, "minute") if minutes < 90 else (hours, "hour")
    number = float(f"{number:.2g}")
    return _several(int(number) if number.is_integer() else number, unit)


def _several(number: float, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _distinct(texts: Iterable[Texts]) -> list[Texts]:
    """Return the largest of each origin, which has all others of it."""
    largest: dict[str, Texts] = {}
    for one in texts:
        if one.origin not in largest or one.unique > largest[one.origin].unique:
            largest[one.origin] = one
    return list(largest.values())


def _shape(known: Dimensions | None) -> ModelShape:
    """Return what policies have to know of a model; whether it has a position bias is no matter."""
    if known is None:
        return ModelShape(layers=None, window=None, position_bias=False)
    return ModelShape(layers=known.layers, window=known.window, position_bias=False)


def _length(texts: Texts, model: Dimensions) -> float:
    """Return the tokens that a model reads of a text of average length."""
    if not texts.count:
        return 0.0
    average = texts.characters / texts.count / CHARACTERS_PER_TOKEN + _SPECIAL_TOKENS
    return average if model.window is None else min(average, model.window)


def _tokens(texts: Texts, model: Dimensions) -> int:
    return round(texts.unique * _length(texts, model))


def _operations(texts: Sequence[Texts], model: Dimensions) -> float:
    """Return the floating-point operations of a forward pass over each text once."""
    return sum(operations(_tokens(text, model), _length(text, model), model) for text in texts)


def operations(tokens: float, length: float, model: Dimensions) -> float:
    """Return the floating-point operations of a forward pass over texts of one length.

    A layer as wide as BERT's multiplies each token with 12 · hidden² weights (four matrices of
    attention, and a feed-forward part four times as wide), at two operations each; and attention
    takes 4 · length · hidden a token for QKᵀ and its product with V.

    Args:
        tokens: of all texts together.
        length: of each text, in tokens; of texts of several lengths the mean over all tokens of
            the length of their text gives the exact number.
        model: as wide as BERT.
    """
    return tokens * model.layers * (24 * model.hidden**2 + 4 * length * model.hidden)


def _has_other_languages(part: Part) -> bool:
    if part.name in DOCS_TASKS:
        return False
    languages = registry().tasks[part.name].subsets
    kept = [languages[one] for one in part.subsets or languages]
    return any(not script.startswith("eng") for scripts in kept for script in scripts)


def _machine(settings: Settings) -> Machine:
    import torch

    from lcbench.sweep import device_of

    device = device_of(settings.engine)
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        name = _several(torch.get_num_threads(), "core") if device == "cpu" else device
    return Machine(name, device, settings.protocol.dtype)


def matmul_rate(device: str, dtype: str, hidden: int) -> float:
    """Return the operations a second of a matrix product as in a layer of that width.

    The best of as many as fit in half a second, so that another process's moments do not count.

    Args:
        device: `cpu`, `cuda` …
        dtype: `float32`, `float16` or `bfloat16`.
        hidden: [rows, hidden] × [hidden, 4 · hidden] is multiplied.
    """
    import torch

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    rows = _ROWS.get(device.partition(":")[0], _ROWS["cpu"])
    left = torch.randn(rows, hidden, device=device, dtype=getattr(torch, dtype))
    right = torch.randn(hidden, 4 * hidden, device=device, dtype=left.dtype)
    best = float("inf")
    # The first is slower: threads start, kernels are chosen.
    left @ right
    wait()
    began = time.perf_counter()
    while time.perf_counter() - began < _MEASURED_SECONDS:
        started = time.perf_counter()
        left @ right
        wait()
        best = min(best, time.perf_counter() - started)
    return 2 * rows * hidden * 4 * hidden / best


# Once a process: an estimate of several models of one width measures it once.
_matmul_rate = lru_cache(maxsize=8)(matmul_rate)


if __name__ == "__main__":
    main()
