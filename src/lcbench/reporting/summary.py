"""Words the findings in a sentence or two per table and model: gain, interval, choice of τ.

All numbers come from the report's dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import AVERAGE, BASELINE, word_of
from lcbench.reporting.text import signed, two_decimals


def findings(
    table: Mapping[str, Any], paper: Sequence[Mapping[str, Any]] = ()
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the findings of a table in sentences: about all models, and about each by its label.

    There are none about all models if there is only one.

    Args:
        table: score table of the report's dictionary (`document.build`).
        paper: rows of the comparison with the paper, from the same dictionary.
    """
    choices = {one["label"]: one for one in (table.get("choice") or {}).get("models") or ()}
    models = table.get("models") or ()
    return (
        _of_all(table, models) if len(models) > 1 else (),
        tuple(
            (
                model["label"],
                _of_model(model, choices.get(model["label"]), len(models) == 1)
                + _of_paper(model, paper),
            )
            for model in models
        ),
    )


def _of_all(table: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    tried = [_best_average(model) for model in models if model.get("best") is not None]
    if not tried:
        return ("Only the baseline was measured.",)
    sentences = []
    word, _ = words = word_of(policy for model in models for policy in model.get("policies") or ())
    average = (table.get("average_improvement") or {}).get(AVERAGE)
    if average is not None:
        sentences.append(
            f"Over {len(tried)} models, each at its best {word}, {AVERAGE} changes by "
            f"{signed(average['value'])} %{_interval(average, words)}, "
            f"{_MEANINGS[_verdict(average)]}."
        )
    sentences.append(f"Of {len(tried)} models: {_counted(tried)}.")
    chosen = (table.get("choice") or {}).get("models") or ()
    if chosen:
        held_out_gain, optimism = (
            fmean(one[name] for one in chosen) for name in ("held_out_gain", "optimism")
        )
        states = "understates" if optimism < 0 else "overstates"
        sentences.append(
            f"With each task's {word} chosen on the other tasks, {AVERAGE} changes by "
            f"{signed(held_out_gain)} % on average over models. The paper's rule, which chooses "
            f"on the test data, {states} that by {two_decimals(abs(optimism))} points."
        )
    return tuple(sentences)


def _counted(improvements: Sequence[Mapping[str, Any] | None]) -> str:
    """Return how many improvements are significantly different from zero, in words."""
    verdicts = [_verdict(one) for one in improvements]
    gains, losses, unsure, unknown = (verdicts.count(word) for word in _MEANINGS)
    text = (
        f"{gains} with a significant gain, {losses} with a significant loss, {unsure} "
        "not significantly different from zero"
    )
    return f"{text}, {unknown} without an interval" if unknown else text


def headlines(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the main finding for each model: the best τ, with its interval.

    Whether it is significant is decided by the band over all τ tried.

    Args:
        table: score table of the report's dictionary.

    Returns:
        A dictionary per model: model, verdict (gain, loss, inconclusive, unknown), policy (the one
        named in the text, or None) and text.
    """
    return [
        {"model": model["label"], "verdict": verdict, "policy": policy, "text": text}
        for model in table.get("models") or ()
        for verdict, policy, text in [_headline(model)]
    ]


def _headline(model: Mapping[str, Any]) -> tuple[str, str | None, str]:
    """Return the verdict on a model, the policy concerned, and both in a sentence."""
    if model.get("best") is None:
        score = (model["scores"].get(BASELINE) or {}).get(AVERAGE)
        known = "has missing values" if score is None else f"is {score:.2f}"
        return "unknown", None, f"only the baseline was measured; its {AVERAGE} {known}."
    tried = {
        policy: row[AVERAGE]
        for policy, row in (model.get("improvements") or {}).items()
        if row.get(AVERAGE) is not None
    }
    if not tried:
        missing = f"{AVERAGE} has missing values at {label_of(model['best'])}"
        return "unknown", None, f"{missing}, so that its gain is unknown."
    gains = [policy for policy, one in tried.items() if _verdict(one) == "gain"]
    policy = max(gains or tried, key=lambda one: float(tried[one]["value"]))
    chosen, verdict = tried[policy], _verdict(tried[policy])
    words = word_of(tried)
    interval = _interval(chosen, words)
    gain = f"{label_of(policy)}: {AVERAGE} {signed(chosen['value'])} %{interval}"
    if verdict == "gain":
        return verdict, policy, f"the best is {gain}, {_MEANINGS[verdict]}."
    if verdict == "unknown":
        return verdict, policy, f"the best is {gain}; {_MEANINGS[verdict]}."
    if verdict == "inconclusive" and chosen["value"] > 0:
        return verdict, policy, f"the best is {gain}, {_MEANINGS[verdict]}."
    none = f"no {words[0]} beat the baseline"
    return verdict, policy, f"{none}; the closest is {gain}, {_MEANINGS[verdict]}."


def _of_model(model: Mapping[str, Any], choice: Mapping[str, Any] | None, is_alone: bool) -> str:
    text, best = _headline(model)[2], model.get("best")
    average = None if best is None else _best_average(model)
    if average is not None and average.get("note"):
        note = str(average["note"])
        text += f" {note[0].upper()}{note[1:]}."
    if choice is None or average is None:
        return text
    word, _ = word_of(choice.get("candidates") or ())
    held_out = (
        f"choosing each task's {word} on the other tasks gives {signed(choice['held_out_gain'])} %"
    )
    if choice["tau"] != best:
        # TempScale's line is never τ = 1, and may be a policy by role, layer or length.
        among = "the constant τ" if word == "τ" else "the repairs with a constant τ"
        return (
            f"{text} Among {among}, 1 included, the paper's rule takes "
            f"{label_of(choice['tau'])}: {signed(choice['gain'])} %; {held_out}."
        )
    optimism = two_decimals(abs(choice["optimism"]))
    compared = f"{optimism} points {'more' if choice['optimism'] < 0 else 'less'} than"
    if optimism == "0.00":
        compared = "here the same as"
    rule = ", which chooses on the test data" if is_alone else ""
    return f"{text} C{held_out[1:]}, {compared} the paper's rule{rule}."


# The footnotes of Table 1 state which sources of noise the interval includes.
_MEANINGS = {
    "gain": "a significant gain",
    "loss": "a significant loss",
    "inconclusive": "not significantly different from zero",
    "unknown": "how sure this is, is not known",
}


def _best_average(model: Mapping[str, Any]) -> Mapping[str, Any] | None:
    of_best: Mapping[str, Any] = (model.get("improvements") or {}).get(model["best"]) or {}
    return of_best.get(AVERAGE)


def _verdict(one: Mapping[str, Any] | None) -> str:
    if one is None or one.get("low") is None or one.get("high") is None:
        return "unknown"
    if one.get("significant") is False:
        return "inconclusive"
    if one["low"] > 0:
        return "gain"
    return "loss" if one["high"] < 0 else "inconclusive"


def _interval(one: Mapping[str, Any], words: tuple[str, str]) -> str:
    if one.get("low") is None or one.get("high") is None:
        return ""
    tried = one.get("tried") or 1
    chosen = f", counting the choice among {tried} {words[1]}" if tried > 1 else ""
    return f" (95 % interval {signed(one['low'])} to {signed(one['high'])}{chosen})"


def _of_paper(model: Mapping[str, Any], paper: Sequence[Mapping[str, Any]]) -> str:
    """Return the paper's number for this model in a sentence, if there is one."""
    identity = [model.get(key) for key in ("model", "revision", "window")]
    return "".join(
        f" The paper prints {signed(one['paper'])} % at τ = {one['policy']}."
        for one in paper
        if [one.get(key) for key in ("name", "revision", "window")] == identity
        and (one["row"], one["column"]) == ("relative", AVERAGE)
    )
