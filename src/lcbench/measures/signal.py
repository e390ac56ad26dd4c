"""Measure what each layer and each step in it leaves of the differences between token vectors.

The high-frequency part of token vectors X is HC[X] = X − 1·mean(X). The measure is the log ratio
of its size after and before, log(‖HC[X′]‖_F / ‖HC[X]‖_F) (arXiv:2410.24200, Figure 2): below 0 if
token vectors become more alike. The mean of token vectors, which mean pooling takes as the
embedding, is exactly what HC leaves out; so this says what happens within a text, not between
texts.

Steps are taken on the residual stream, so that their log ratios add up to the layer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lcbench.measures.trace import Stream, log_ratio, trace

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.tempscale.policy import Role


def signal(
    model: Any,
    texts: Sequence[str] | Sequence[Sequence[int]],
    tau: Any = 1.0,
    *,
    tokenizer: Any = None,
    role: Role | None = None,
    layers: Sequence[int] | None = None,
    memory: float | None = None,
) -> pd.DataFrame:
    """Measure the high-frequency part of a model's token vectors, by layer and step.

    Args:
        model: a `SentenceTransformer` or a `PreTrainedModel`, on eager or sdpa attention.
        texts: texts, or their token ids with special tokens.
        tau: a temperature policy as `lcbench.inject` takes it, or a list of several.
        tokenizer: that of a `PreTrainedModel`, for texts that are not token ids.
        role: whose texts these are, `query` or `document`, for a policy by role.
        layers: layers to measure, from 0; None: all.
        memory: the most memory in GiB that attention may take; None: that of the machine.

    Returns:
        Rows with the columns `policy`, `text` (its number from 0), `tokens`, `layer`, `tau`,
        `part`, `step` and `log_ratio`. The parts are `block` (the whole layer), `stream` (each step
        along the residual stream: `attention added`, `attention normalised`, `feed-forward added`
        and so on; their log ratios add up to the block's) and `branch` (what is added, compared
        with the stream that it is added to). NaN for a text of one token, which has no differences.

    Raises:
        InjectionError: the model has no attention, or its residual stream cannot be followed.
        RequestError: a layer that the model does not have, no texts, or a text that needs more
            memory than there is.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for one in trace(
        model,
        texts,
        tau,
        lambda _: None,
        tokenizer=tokenizer,
        role=role,
        layers=layers,
        memory=memory,
        streams=True,
    ):
        if one.stream is not None:
            rows += [{**one.place(), **row} for row in stream_rows(one.stream)]
    return pd.DataFrame(rows)


def stream_rows(stream: Stream) -> list[dict[str, Any]]:
    """Return the log ratios of a layer: the whole, its steps, and its branches."""
    last = stream.steps[-1].size
    rows = [
        {"part": "block", "step": "block", "log_ratio": log_ratio(last, stream.entering)},
    ]
    before = stream.entering
    branches = []
    for step in stream.steps:
        rows.append(
            {"part": "stream", "step": step.name, "log_ratio": log_ratio(step.size, before)}
        )
        if step.branch is not None:
            name = step.name.removesuffix(" added")
            branches.append(
                {"part": "branch", "step": name, "log_ratio": log_ratio(step.branch, before)}
            )
        before = step.size
    return rows + branches
