"""The columns of a cell's items."""

from __future__ import annotations

import pyarrow as pa

ITEMS_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("subset", pa.string()),
        # A query's id (of sub-queries, what their ids have in common); else the position in the
        # split (and, for clusterings, in the set).
        ("id", pa.string()),
        # Tokens that the model reads of the item, and of the second text of a pair: of sub-queries,
        # the longest; of a document with summaries the longest machine summary, as mteb encodes
        # its summaries and not itself.
        ("tokens", pa.int32()),
        ("tokens_2", pa.int32()),
        # The item's part of the main score: a query's nDCG, AP …, or that of its sub-queries
        # together; a pair's cosine; the share of experiments that classify a text rightly; a
        # document's correlation of its summaries' similarities with their grades, as its task
        # averages it (SummEval's first version: the mean of Spearman's ρ and its p-value). Null for
        # clusterings, whose sets have scores, in mteb's result, but their texts have none.
        ("score", pa.float64()),
        # What is true of it: a pair's similarity, a text's label.
        ("gold", pa.string()),
        # What was predicted: the label in each experiment, or the cluster.
        ("predictions", pa.list_(pa.string())),
        # Of a query: every relevant document, its grade, its tokens, and its rank over the whole
        # corpus (1 = first), or among the candidates where the task reranks.
        (
            "relevant",
            pa.list_(
                pa.struct(
                    [
                        ("id", pa.string()),
                        ("grade", pa.int32()),
                        ("tokens", pa.int32()),
                        ("rank", pa.int32()),
                    ]
                )
            ),
        ),
    ]
)
