"""See that every weight of a loaded model came from its checkpoint.

transformers gives weights that a checkpoint lacks random values, drops those that the model has no
place for, and only warns of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from lcbench.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The functions that transformers ends every loading of weights with: of a model, of an adapter. A
# model with an adapter is loaded in two steps, of which its `output_loading_info` tells the second.
_REPORTS = (
    "transformers.modeling_utils.log_state_dict_report",
    "transformers.integrations.peft.log_state_dict_report",
)
# Weights of a head on top of the token embeddings, which pooling of sentence-transformers does not
# use: BERT's pooler is not in the checkpoints of many embedding models.
_POOLER = "pooler."
_NAMED = 3
# Buffers of older checkpoints that the code of today computes.
_COMPUTED = ("position_ids", "token_type_ids", "inv_freq", "num_batches_tracked")


@dataclass(frozen=True)
class LoadReport:
    """What transformers reports of weights that it has loaded.

    Attributes:
        model: the transformer that they were loaded into.
        missing: names of its weights that the checkpoint lacks, or has in another shape.
        unexpected: names of tensors of the checkpoint that it has no place for.
    """

    model: PreTrainedModel
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@contextmanager
def load_reports() -> Iterator[list[LoadReport]]:
    """Collect what transformers reports of everything that is loaded in this context."""
    import transformers.integrations.peft
    import transformers.modeling_utils

    reports: list[LoadReport] = []

    def reporting(report: Any) -> Any:
        def note(*args: Any, **kwargs: Any) -> None:
            info, model = kwargs["loading_info"], kwargs["model"]
            missing = tuple(sorted(info.missing_and_mismatched()))
            reports.append(LoadReport(model, missing, tuple(sorted(info.unexpected_keys))))
            report(*args, **kwargs)

        return note

    modules = (transformers.modeling_utils, transformers.integrations.peft)
    with ExitStack() as patches:
        for name, module in zip(_REPORTS, modules, strict=True):
            patches.enter_context(patch(name, reporting(module.log_state_dict_report)))
        yield reports


def refuse_incomplete(name: str, reports: Iterable[LoadReport]) -> None:
    """Refuse a model of which weights are missing, or that cannot use some of its checkpoint.

    Heads that embeddings do not depend on may be missing (a pooler), or be there for nothing (a
    classifier, a language model's head).

    Args:
        name: of the model, for the message.
        reports: of its loading, from `load_reports`.

    Raises:
        RequestError: naming weights, and how many of how many.
    """
    reports = list(reports)
    if not reports:
        raise RequestError(
            f"{name}: this version of transformers does not report which weights it has loaded; "
            "install the versions of constraints.txt."
        )
    for report in reports:
        kind = type(report.model).__name__
        total = len(report.model.state_dict())
        if missing := [key for key in report.missing if not key.startswith(_POOLER)]:
            found = [key for key in report.unexpected if _belongs(key, report.model, anywhere=True)]
            raise RequestError(
                f"{name}: its checkpoint lacks {len(missing)} of {kind}'s {total} weights, which "
                f"would be random: {_named(missing)}."
                + (f" It has {_named(found)} instead." if found else "")
            )
        if unused := [key for key in report.unexpected if _belongs(key, report.model)]:
            raise RequestError(
                f"{name}: its checkpoint has {len(unused)} weights that {kind}, as its "
                f"configuration has it, does not use: {_named(unused)}. Its embeddings would be "
                "those of another model."
            )


def _belongs(key: str, model: PreTrainedModel, *, anywhere: bool = False) -> bool:
    """Return whether a tensor lies within a part of the model that embeddings depend on."""
    bare = key.removeprefix(f"{model.base_model_prefix}.")
    if bare.startswith(_POOLER) or bare.rpartition(".")[2] in _COMPUTED:
        return False
    return anywhere or bare.partition(".")[0] in dict(model.named_children())


def _named(keys: list[str]) -> str:
    more = len(keys) - _NAMED
    return ", ".join(keys[:_NAMED]) + (f" and {more} more" if more > 0 else "")
