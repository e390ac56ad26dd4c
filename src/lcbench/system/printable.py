"""Makes text safe for a terminal or a log: without control characters and passwords."""

from __future__ import annotations

import re
import unicodedata

# User and password in an address.
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]+(?=@)")
# Control characters, invisible direction marks and the like, lone surrogates, and line separators
# that no terminal shows.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Return a text with control and invisible characters as escapes: `\x1b`.

    Newlines and tabs are kept; user and password in an address are removed.
    """
    if "://" in text:
        text = without_credentials(text)
    if text.isprintable():
        return text
    return "".join(
        escaped(one) if unicodedata.category(one) in _UNSHOWN and one not in "\n\t" else one
        for one in text
    )


def without_credentials(text: str) -> str:
    """Return a text with `***` for the user and password in every address."""
    return _CREDENTIALS.sub("***", text)


def escaped(character: str) -> str:
    r"""Return a character as an escape: `\x1b`, `\u2028`."""
    if ord(character) > 127:
        return character.encode("ascii", "backslashreplace").decode("ascii")
    return repr(character)[1:-1]
