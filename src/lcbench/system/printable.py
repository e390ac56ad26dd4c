"""Text that a terminal or a log can show: nothing in it is obeyed, and no password is in it."""

from __future__ import annotations

import re
import unicodedata

# The user and password of an address.
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]+(?=@)")
# Controls, invisible marks of direction and the like, halves of characters, and separators of lines
# that no terminal shows.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Return a text with what a terminal would obey, or not show, as an escape: `\x1b`.

    Newlines and tabs stay; the user and password of an address do not.
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
