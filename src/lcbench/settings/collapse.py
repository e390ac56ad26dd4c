"""Convert the config of `lcbench collapse` to typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.measures.asked import Asked
from lcbench.measures.collapse import Options
from lcbench.measures.crowding import FEWEST
from lcbench.measures.figures import NUMBERS, SAME, FigureOptions, Number
from lcbench.measures.inside import INSIDE, InsideMeasure, InsideOptions
from lcbench.settings.read import read_run
from lcbench.settings.values import boolean_of, container_of, count_of, needed_path, one_of, path_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.settings.schema import RunSettings

_FEWEST_RESAMPLES = 1_000
# Keys of a run that mean nothing here, with what to do instead.
_OF_RUNS = {
    "limit": "collapse takes passages= and whole_texts=",
    "track": "measurements are not tracked",
    "name": "measurements are found by what they are of",
}
# What is measured by default.
EMBEDDINGS = "embeddings"
# Figures of scores, which `lcbench report` draws.
_IN_THE_REPORT = {
    **dict.fromkeys(("7", "13"), "scores of the longest and shortest queries"),
    **dict.fromkeys(("8", "14"), "scores by length and τ"),
    **dict.fromkeys(("9", "15"), "scores by τ of queries and documents"),
}


@dataclass(frozen=True)
class CollapseSettings:
    """The settings of `python -m lcbench collapse` apart from the request.

    Attributes:
        asked: what is measured, and which figures are made.
        embeddings: a matrix of embeddings to be measured, and `lengths` of its texts; None: models.
        lengths: of the texts of `embeddings`.
        fails_on_collapse: whether the exit status is 1 if a model collapses.
        plans: whether the measurements are only planned.
        run: where they are made, or the manifest that replaces the request.
        results_dir: results folder.
        report_dir: folder of the report.
    """

    asked: Asked
    embeddings: Path | None
    lengths: Path | None
    fails_on_collapse: bool
    plans: bool
    run: RunSettings
    results_dir: Path
    report_dir: Path


def read_collapse(config: DictConfig) -> CollapseSettings:
    """Return the checked settings of `lcbench collapse`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    for key, instead in _OF_RUNS.items():
        if value[key] is not None:
            raise RequestError(f"{key}={value[key]} is a key of runs, not of collapse: {instead}.")
    if value["engine"]["devices"] not in (None, "spread"):
        raise RequestError(
            f"engine.devices={value['engine']['devices']}: collapse runs on one device; several "
            "processes with the same command, each with its engine.device=cuda:N, share its work."
        )
    if value["fail_if"] is not None:
        one_of("fail_if", value["fail_if"], ("collapse",))
    embeddings, lengths = (path_of(key, value[key]) for key in ("embeddings", "lengths"))
    if (embeddings is None) != (lengths is None):
        given, other = ("embeddings", "lengths") if lengths is None else ("lengths", "embeddings")
        raise RequestError(f"{given}={value[given]} needs {other}=PATH (.npy, one row a text).")
    measures = _measures(value["measures"], value["figures"])
    inside = tuple(one for one in INSIDE if one in measures)
    if inside and embeddings is not None:
        raise RequestError(
            f"measures={value['measures']}: what happens inside a model needs the model, and "
            "embeddings= has none"
        )
    if not inside and value["traced_lengths"] != "auto":
        raise RequestError(
            f"traced_lengths={value['traced_lengths']} is a key of measures inside the model: "
            f"'measures=[{','.join(INSIDE)}]'."
        )
    figures = _figures(value["figures"])
    if figures and embeddings is not None:
        raise RequestError(
            f"figures={value['figures']} needs a model and texts, and embeddings= has neither"
        )
    run = read_run(config)
    plans = boolean_of("plan", value["plan"])
    planned = plans or run.launch.name != "local" or run.manifest is not None
    if planned and embeddings is not None:
        raise RequestError("embeddings= is measured at once: there is nothing to plan")
    if plans and run.manifest is not None:
        raise RequestError(f"manifest={run.manifest} is already planned.")
    folder = needed_path("results_dir", value["results_dir"])
    options = _options(value)
    return CollapseSettings(
        asked=Asked(
            options if EMBEDDINGS in measures or embeddings is not None else None,
            _inside(value, inside) if inside else None,
            figures,
            FigureOptions(
                count_of("figure_texts", value["figure_texts"], least=2 * FEWEST),
                options.resamples,
                options.seed,
            ),
        ),
        embeddings=embeddings,
        lengths=lengths,
        fails_on_collapse=value["fail_if"] is not None,
        plans=plans,
        run=run,
        results_dir=folder,
        report_dir=path_of("report_dir", value["report_dir"]) or folder / "report" / "collapse",
    )


def _options(value: Mapping[str, Any]) -> Options:
    return Options(
        passages=count_of("passages", value["passages"], least=FEWEST),
        compared=count_of("compared", value["compared"], least=FEWEST),
        counts=_counts(value["sentences"]),
        documents=count_of("whole_texts", value["whole_texts"], least=2 * FEWEST),
        bins=count_of("bins", value["bins"], least=2),
        queries=count_of("queries", value["queries"], least=FEWEST),
        corpus=count_of("corpus", value["corpus"], least=FEWEST),
        chunk_tokens=count_of("chunk_tokens", value["chunk_tokens"], least=8),
        resamples=count_of("resamples", value["resamples"], least=_FEWEST_RESAMPLES),
        seed=count_of("seed", value["seed"], least=0),
    )


def _measures(value: Any, figures: Any) -> tuple[str, ...]:
    """Return what is measured; nothing where figures alone are asked for."""
    asked = [str(one) for one in (value if isinstance(value, list) else [value])]
    known = (EMBEDDINGS, *INSIDE)
    for one in asked:
        one_of("measures", one, known)
    if not asked and figures is None:
        raise RequestError(f"measures=[] measures nothing: choose from {', '.join(known)}")
    return tuple(dict.fromkeys(asked))


def _inside(value: Mapping[str, Any], measures: tuple[InsideMeasure, ...]) -> InsideOptions:
    lengths = value["traced_lengths"]
    if lengths != "auto":
        lengths = lengths if isinstance(lengths, list) else [lengths]
        if not all(type(one) is int and one > 2 for one in lengths) or (
            not lengths or lengths != sorted(set(lengths))
        ):
            raise RequestError(
                f"traced_lengths={value['traced_lengths']} is not a list of numbers of tokens "
                "above 2, in ascending order: 'traced_lengths=[64,512]', or auto"
            )
    return InsideOptions(
        measures=measures,
        texts=count_of("traced_texts", value["traced_texts"], least=FEWEST),
        lengths=None if lengths == "auto" else tuple(lengths),
        resamples=count_of("resamples", value["resamples"], least=_FEWEST_RESAMPLES),
        seed=count_of("seed", value["seed"], least=0),
    )


def _figures(value: Any) -> tuple[Number, ...]:
    """Return numbers of figures, each once, in the paper's order."""
    if value is None:
        return ()
    # Hydra reads 3 as a number.
    asked = [str(one) for one in (value if isinstance(value, list) else [value])]
    asked = [SAME.get(one, one) for one in asked]
    for one in asked:
        if one in _IN_THE_REPORT:
            raise RequestError(
                f"figures={one}: Figure {one} is in the page of `lcbench report`: "
                f"{_IN_THE_REPORT[one]}. Here: {', '.join(NUMBERS)}."
            )
        if one not in NUMBERS:
            raise RequestError(
                f"figures={one}: there is no such figure here; there are {', '.join(NUMBERS)}."
            )
    return tuple(number for number in NUMBERS if number in asked)


def _counts(value: Any) -> tuple[int, ...] | None:
    """Return numbers of sentences; None for `auto`."""
    if value == "auto":
        return None
    counts = value if isinstance(value, list) else [value]
    if (
        not counts
        or not all(type(one) is int and one > 1 for one in counts)
        or counts != sorted(set(counts))
    ):
        raise RequestError(
            f"sentences={value} is no list of numbers above 1, in ascending order: "
            "'sentences=[2,4,8,16]', or auto"
        )
    return tuple(counts)
