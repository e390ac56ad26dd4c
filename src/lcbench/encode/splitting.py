"""Determines from a tokenizer's description whether it splits texts at spaces."""

from __future__ import annotations

import re
from typing import Any

# Unicode categories of the characters that a space is looked for between.
WORD = {"Lu", "Ll", "Lo", "Nd"}
# An added token that could hold such a space.
ACROSS_WORDS = re.compile(r"(?:^|[^\W_]) (?:$|[^\W_])")
# Pre-tokenizers that end a piece before every such space …
_SPLITTING = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
# … and those that look at one character, so that they may come before one of these.
_BY_CHARACTER = {"Digits", "Punctuation", "UnicodeScripts"}
# The expressions of GPT-4 (Llama 3 has the same) and Qwen 2: like GPT-2's, which `ByteLevel` has
# built in, none of their alternatives goes on from a letter or digit to a space.
_SPLITTING_EXPRESSIONS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers + r"|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}", r"\p{N}{1,3}")
}
# Normalisers that change a character by what it is, or by the marks that follow it; what they do
# to the characters at a cut is looked at there. Strip takes only what is at the ends.
_LEAVING = {
    "BertNormalizer",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Nmt",
    "Precompiled",
    "Strip",
    "StripAccents",
}
# Expressions that published tokenizers replace, and that match no single space.
_REPLACED_EXPRESSIONS = {r" {2,}", r"\s{2,}|[\n\r\t]", r"\s{2,}"}


def splits_at_spaces(part: dict[str, Any] | None) -> bool:
    """Return whether a serialised pre-tokenizer ends a piece before a space between words."""
    if part is None:
        return False
    kind = part["type"]
    if kind == "Sequence":
        for inner in part["pretokenizers"]:
            # What comes after it sees one of its pieces at a time.
            if splits_at_spaces(inner):
                return True
            if inner["type"] not in _BY_CHARACTER:
                return False
        return False
    if kind == "Split":
        matches = (part["behavior"], part["invert"]) in (("Isolated", False), ("Removed", True))
        return matches and part["pattern"].get("Regex") in _SPLITTING_EXPRESSIONS
    return (
        kind in _SPLITTING
        or (kind == "ByteLevel" and part.get("use_regex") is True)
        or (kind == "Metaspace" and part.get("split") is True)
    )


def leaves_spaces(part: dict[str, Any] | None) -> bool:
    """Return whether a serialised normaliser never looks across a space between words."""
    if part is None:
        return True
    if part["type"] == "Sequence":
        return all(map(leaves_spaces, part["normalizers"]))
    if part["type"] == "Replace":
        pattern = part["pattern"]
        if "Regex" in pattern:
            return pattern["Regex"] in _REPLACED_EXPRESSIONS
        return not any(map(str.isspace, pattern["String"])) and (
            part["content"] != "" and not any(map(str.isspace, part["content"]))
        )
    return part["type"] in _LEAVING
