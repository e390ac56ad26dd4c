"""Checks that a loaded model is the one that its files describe.

transformers gives weights that a checkpoint lacks random values, drops those that the model has no
place for, and only warns of both. Modules of sentence-transformers replace settings that they
cannot use by others, and only warn too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from lcbench.errors import RequestError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor
    from transformers import PreTrainedModel

    from lcbench.tempscale.policy import Role

# The functions that transformers ends every loading of weights with: of a model, of an adapter. A
# model with an adapter is loaded in two steps, of which its `output_loading_info` tells the second.
_REPORTS = (
    "transformers.modeling_utils.log_state_dict_report",
    "transformers.integrations.peft.log_state_dict_report",
)
# Weights of a head on top of the token embeddings, which pooling of sentence-transformers does not
# use: BERT's pooler is not in the checkpoints of many embedding models. A model may read it, though
# (`method_output_name: pooler_output` in its `modality_config`, or code of its own).
_POOLER = "pooler."
_NAMED = 3
# Buffers of older checkpoints that the code of today computes.
_COMPUTED = ("position_ids", "token_type_ids", "inv_freq", "num_batches_tracked")
# Where modules of sentence-transformers log, and what they warn of that changes no embedding.
_LOGGER = "sentence_transformers"
_MODULES = (
    "sentence_transformers.base.modules",
    "sentence_transformers.sentence_transformer.modules",
)
_HARMLESS = re.compile(r"deprecated|unpad_inputs=True|unknown modality|for modality")


@dataclass(frozen=True)
class LoadReport:
    """A report of transformers about weights that it has loaded.

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
    """Collect transformers' reports of everything loaded within this context."""
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


@contextmanager
def load_warnings() -> Iterator[list[str]]:
    """Collect the warnings of sentence-transformers' modules about replaced settings."""
    collected: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if record.name.startswith(_MODULES) and not _HARMLESS.search(message):
                collected.append(message)

    logger, collector = logging.getLogger(_LOGGER), Collector(logging.WARNING)
    level = logger.level
    logger.addHandler(collector)
    # Whoever uses the library may have silenced it.
    logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
    try:
        yield collected
    finally:
        logger.setLevel(level)
        logger.removeHandler(collector)


def refuse_replaced(name: str, warnings: Iterable[str]) -> None:
    """Refuse a model whose settings sentence-transformers has replaced.

    An activation function that it does not trust becomes tanh, a parameter that it does not know is
    left out, and so is a route that it cannot read.

    Args:
        name: the model's name, for the message.
        warnings: warnings of its loading, from `load_warnings`.

    Raises:
        RequestError: quoting sentence-transformers.
    """
    for warning in warnings:
        remedy = ""
        if "trust_remote_code=True" in warning:
            remedy = " Here that is model.trust_remote_code=true, which runs the model's own code."
        raise RequestError(
            f"{name} would be loaded differently than its files specify. sentence-transformers: "
            f"{warning.strip()}{remedy}"
        )


def refuse_incomplete(
    name: str, reports: Iterable[LoadReport], model: SentenceTransformer | None = None
) -> None:
    """Refuse a model of which weights are missing, or that cannot use some of its checkpoint.

    Heads that embeddings do not depend on may be missing (a pooler), or be there for nothing (a
    classifier, a language model's head).

    Args:
        name: the model's name, for the message.
        reports: reports of its loading, from `load_reports`.
        model: the loaded model; None: loading failed.

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
        missing = [key for key in report.missing if not key.startswith(_POOLER)]
        pooler = [key for key in report.missing if key.startswith(_POOLER)]
        if pooler and model is not None and _depends_on(model, report.model, pooler):
            missing += pooler
        if missing:
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


def _depends_on(model: SentenceTransformer, transformer: PreTrainedModel, keys: list[str]) -> bool:
    """Return whether an embedding depends on some weights: it is NaN if they are."""
    import torch

    state = transformer.state_dict()
    weights = [state[key] for key in keys if state[key].is_floating_point()]
    values = [weight.clone() for weight in weights]
    if not all(bool(one.isfinite().all()) for one in _embeddings(model)):
        return False  # whatever its pooler is; that is refused elsewhere
    try:
        with torch.no_grad():
            for weight in weights:
                weight.fill_(torch.nan)
        return any(bool(one.isnan().any()) for one in _embeddings(model))
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, values, strict=True):
                weight.copy_(value)


def _embeddings(model: SentenceTransformer) -> list[Tensor]:
    """Return the embedding of a text in every role that the model knows, [dimensions] each."""
    from lcbench.encode.roles import check_routes, depends_on_role

    encoders: dict[Role | None, Any] = {None: model.encode}
    if depends_on_role(model):
        encoders |= {"query": model.encode_query, "document": model.encode_document}
    embeddings = []
    for role, encode in encoders.items():
        try:
            check_routes(model, [role], "")
        except RequestError:
            continue  # no way for such texts, and an error only where there are some
        embeddings.append(encode("a text", convert_to_tensor=True, show_progress_bar=False))
    return embeddings


def _belongs(key: str, model: PreTrainedModel, *, anywhere: bool = False) -> bool:
    """Return whether a tensor lies within a part of the model that embeddings depend on."""
    bare = key.removeprefix(f"{model.base_model_prefix}.")
    if bare.startswith(_POOLER) or bare.rpartition(".")[2] in _COMPUTED:
        return False
    return anywhere or bare.partition(".")[0] in dict(model.named_children())


def _named(keys: list[str]) -> str:
    more = len(keys) - _NAMED
    return ", ".join(keys[:_NAMED]) + (f" and {more} more" if more > 0 else "")
