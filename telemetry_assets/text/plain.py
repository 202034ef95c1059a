"""Text that comes from documents and from the names of uploads, as people may safely be shown it.

A car, a field or a file can be named anything: an escape sequence that commands a terminal, a line break that forges a
line of a report, a link that a browser makes live. Everything of theirs that reaches a terminal, a log or Dagster
passes :func:`plain_text`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

# Dagster's UI makes links of these in log lines, and so do many terminals, also inside of words.
_LINK = re.compile(r"(?i)(https?|ftp):(?=//)|(www)\.")


class TrustedText(str):
    """Text that this project has made, such as the address of a remote run's page: shown as it is."""

    __slots__ = ()


def plain_text(value: object) -> str:
    r"""A value as one line of text without control, escape and bidirectional characters and without links.

    What is not printable is written as Python writes it (``\x1b``, ``\u202e``, ``\n``); ``http://`` becomes
    ``http\x3a//``. Text without any of these is returned as it is.
    """
    text = str(value)
    if isinstance(value, TrustedText):
        return text
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _escaped(one) for one in text)
    return _LINK.sub(_unlinked, text)


def plain_start(value: object, longest: int) -> str:
    """A value as :func:`plain_text` of no more than so many characters, with ``…`` as the last one where it is cut."""
    # Cut before it is escaped too, as it may be megabytes, and after it, as it is longer then.
    text = plain_text(str(value)[: longest + 1])
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def plain_lines(text: str) -> str:
    """A text of several lines, such as an error's, without characters that command a terminal. Links stay.

    Its line feeds stay as well, so what it quotes of a document must be :func:`plain_text` before.
    """
    return "".join(one if one.isprintable() or one == "\n" else _escaped(one) for one in text)


def plain_values(value: Any) -> Any:
    """A structure of mappings and sequences whose texts, names included, are :func:`plain_text`."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, Mapping):
        return {plain_values(name): plain_values(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [plain_values(one) for one in value]
    return value


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _unlinked(found: re.Match[str]) -> str:
    return f"{found[1]}\\x3a" if found[1] else f"{found[2]}\\x2e"


class _PlainLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose messages are ours and whose arguments may be anybody's."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message with its arguments as :func:`plain_text`; numbers stay numbers."""
        if self.isEnabledFor(level):
            plain = (one if isinstance(one, int | float) else plain_text(one) for one in args)
            # A record names who has logged, and neither this method nor the one that calls it.
            super().log(level, msg, *plain, stacklevel=2, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave the message as it is; see :class:`logging.LoggerAdapter`."""
        return msg, kwargs


def plain_logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """The logger of a module, whose messages' arguments are :func:`plain_text`. A lint rule allows no other."""
    return _PlainLogger(logging.getLogger(name))  # noqa: TID251  # the one place
