"""Escapes untrusted text (documents, and names of uploads) so that it is safe to show.

A car, a field or a file can have any name: an escape sequence that controls a terminal, a line break that forges a line
of a report, or a link that a browser renders. So :func:`plain_text` is applied to all such text that is printed,
logged, or sent to Dagster.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

# Dagster's UI and many terminals render these as links, also inside words.
_LINK = re.compile(r"(?i)(https?|ftp):(?=//)|(www)\.")


class TrustedText(str):
    """Text that this project created, such as the URL of a remote run. It is not escaped."""

    __slots__ = ()


def plain_text(value: object) -> str:
    r"""A value as one line of text, without control characters, bidirectional characters, and links.

    Characters that are not printable become Python escapes (``\x1b``, ``\u202e``, ``\n``), and ``http://`` becomes
    ``http\x3a//``. All other text is returned unchanged.
    """
    text = str(value)
    if isinstance(value, TrustedText):
        return text
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _escaped(one) for one in text)
    return _LINK.sub(_unlinked, text)


def plain_start(value: object, longest: int) -> str:
    """The beginning of a value as :func:`plain_text`, with at most ``longest`` characters; ``…`` marks the cut."""
    # Cut before escaping, because a text may have megabytes, and afterwards, because escaping makes it longer.
    text = plain_text(str(value)[: longest + 1])
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def plain_lines(text: str) -> str:
    """A text of several lines, such as an error message, without characters that control a terminal.

    Links and line feeds are kept, so apply :func:`plain_text` to quoted documents first.
    """
    return "".join(one if one.isprintable() or one == "\n" else _escaped(one) for one in text)


def plain_values(value: Any) -> Any:
    """A copy of nested mappings and sequences with :func:`plain_text` applied to all texts, including keys."""
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
    """A logger that trusts its messages, and escapes their arguments."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message with :func:`plain_text` applied to its arguments, except numbers."""
        if self.isEnabledFor(level):
            plain = (one if isinstance(one, int | float) else plain_text(one) for one in args)
            # With this stack level, the log record names the caller instead of this method.
            super().log(level, msg, *plain, stacklevel=2, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the message unchanged; see :class:`logging.LoggerAdapter`."""
        return msg, kwargs


def plain_logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """A module's logger, which applies :func:`plain_text` to arguments. A lint rule forbids other loggers."""
    return _PlainLogger(logging.getLogger(name))  # noqa: TID251  # the one place
