"""Finds where JSON values end and how deep they nest, also for texts that Python's parser refuses.

For every text, the time is proportional to its length, and the memory beside the text is bounded: brackets are searched
in pieces of bounded size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_NESTING = 900
"""The maximum number of levels of objects and arrays in a document. Python's parser fails near 1,000 levels, depending
on the depth of its caller. A smaller bound gives the same result wherever a document is parsed."""

MAX_DOCUMENT_CHARACTERS = 8 * 1024 * 1024
"""The maximum length of a document. A parsed document takes up to thirty times the memory of its text."""

Content = bytes | bytearray
"""UTF-8 text as bytes. It can be searched byte by byte: JSON's brackets, quotes and commas are ASCII, and UTF-8 encodes
all other characters without ASCII bytes."""

WHITE_SPACE = re.compile(rb"[ \t\r\n]*")
"""JSON's white space."""

_FIRST_PIECE, _PIECE = 4 * 1024, 1024 * 1024
_NO_QUOTES = np.zeros(0, np.int64)
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_OPENING, _CLOSING = (ord("["), ord("{")), (ord("]"), ord("}"))
# Integers stay text: only the end of a value is needed, and Python refuses to parse integers of many digits.
_DECODER = json.JSONDecoder(parse_int=str)
# Must agree with Python's parser.
_STRICT_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"')
_UNQUOTED = re.compile(rb'[^,"\[\]{}]*[^,"\[\]{} \t\r\n]')


def nests_too_deep(text: str) -> bool:
    """Whether a JSON text nests objects and arrays deeper than :data:`MAX_NESTING`."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    content = text.encode("utf-8", "surrogatepass")
    return is_nested_too_deep(content, 0, len(content))


def is_nested_too_deep(content: Content, start: int, end: int) -> bool:
    """Whether a part of the content nests deeper than :data:`MAX_NESTING`. The part has to begin outside of strings."""
    return any(piece.depths.max(initial=0) > MAX_NESTING for piece in _brackets(content, start, end))


def end_of(pattern: re.Pattern[bytes], content: Content, start: int) -> int:
    """The end of what a pattern matches at ``start``; ``start`` if it does not match."""
    found = pattern.match(content, start)
    return found.end() if found else start


def text_of(content: Content, start: int, end: int) -> str:
    """Decode a part of the content without copying its bytes first."""
    with memoryview(content) as view:
        return str(view[start:end], "utf-8")


def is_value(content: Content, start: int, end: int) -> bool:
    """Whether a part of the content is one JSON value. It may be one that Python refuses: too deep, or a huge number.

    :param start: the beginning of the part, outside of strings.
    """
    if is_too_long(content, start, end):
        return _is_long_value(content, start, end)
    text = text_of(content, start, end)
    try:
        return _DECODER.raw_decode(text)[1] == len(text)
    except json.JSONDecodeError as error:
        # If a text is too deep and also broken after that, Python reports one or the other.
        return nests_too_deep(text[: error.pos]) and _is_closed_at_its_end(content, start, end)
    except RecursionError:
        return _is_closed_at_its_end(content, start, end)


def _is_long_value(content: Content, start: int, end: int) -> bool:
    """See :func:`is_value`. Does not decode, because one rare character makes a decoded text four times as large."""
    if content[start] in _OPENING:
        return _is_closed_at_its_end(content, start, end)
    return content[start] == _QUOTE and _STRICT_STRING.fullmatch(content, start, end) is not None


def is_too_long(content: Content, start: int, end: int) -> bool:
    """Whether a part of the content has more than :data:`MAX_DOCUMENT_CHARACTERS`."""
    if end - start <= MAX_DOCUMENT_CHARACTERS:
        return False
    # Count every byte except the continuation bytes of UTF-8.
    pieces = (np.frombuffer(content[at : min(at + _PIECE, end)], np.uint8) for at in range(start, end, _PIECE))
    return sum(int(np.count_nonzero((piece & 0xC0) != 0x80)) for piece in pieces) > MAX_DOCUMENT_CHARACTERS


def unquoted_end(content: Content, start: int, end: int) -> int | None:
    """The end of a run of characters other than brackets, quotes and commas, without trailing white space; or None.

    :param end: where the search ends.
    """
    found = _UNQUOTED.match(content, start, end)
    return found.end() if found else None


def string_end(content: Content, start: int) -> int | None:
    """The end of the JSON string that begins at ``start``; None if none begins there."""
    found = _STRICT_STRING.match(content, start)
    return found.end() if found else None


def stripped_end(content: Content, start: int, end: int, also: bytes = b"") -> int:
    """The end of a part without trailing white space. Searches in pieces, so that the part is not copied.

    :param also: further characters to remove from the end.
    """
    size = _FIRST_PIECE
    while end > start:
        piece = max(start, end - size)
        kept = len(content[piece:end].rstrip(b" \t\r\n" + also))
        if kept:
            return piece + kept
        end, size = piece, min(2 * size, _PIECE)
    return start


def bracket_end(content: Content, start: int, end: int, *, skip_strings: bool = True) -> int | None:
    """The end of the object or array that begins at ``start``; None if no bracket before ``end`` closes it.

    :param start: the position of an opening bracket outside of strings.
    :param skip_strings: whether brackets in strings do not count.
    """
    for piece in _brackets(content, start, end, skip_strings):
        closed = piece.positions[piece.depths <= 0]
        if closed.size:
            return int(closed[0]) + 1
    return None


def _is_closed_at_its_end(content: Content, start: int, end: int) -> bool:
    """Whether the first bracket of a part is closed exactly at the end of the part."""
    return bracket_end(content, start, end) == end


@dataclass(frozen=True)
class _Piece:
    """Some brackets outside of strings: their positions, and how many brackets are open after each."""

    positions: npt.NDArray[np.int64]
    depths: npt.NDArray[np.int64]


def _brackets(content: Content, start: int, end: int, skip_strings: bool = True) -> Iterator[_Piece]:
    """The brackets outside of strings, or all brackets, in pieces. ``start`` has to be outside of strings."""
    is_inside, backslashes, depth = False, 0, 0
    begin, size = start, _FIRST_PIECE
    while begin < end:
        piece = np.frombuffer(content[begin : min(begin + size, end)], np.uint8)
        quotes, backslashes = _quotes(piece, is_inside, backslashes) if skip_strings else (_NO_QUOTES, 0)
        inside = np.zeros(len(piece) + 1, np.int8)
        inside[quotes + 1] = 1
        inside = (np.cumsum(inside, dtype=np.int32) + is_inside) & 1
        opening = (piece == _OPENING[0]) | (piece == _OPENING[1])
        closing = (piece == _CLOSING[0]) | (piece == _CLOSING[1])
        steps = opening.astype(np.int8) - closing.astype(np.int8)
        steps[inside[:-1] == 1] = 0
        positions = np.flatnonzero(steps)
        depths = depth + np.cumsum(steps[positions], dtype=np.int64)
        depth = int(depths[-1]) if depths.size else depth
        is_inside = bool(inside[-1])
        yield _Piece(positions + begin, depths)
        # Small pieces first, because most values are short.
        begin, size = begin + size, min(2 * size, _PIECE)


def _quotes(piece: npt.NDArray[np.uint8], is_inside: bool, backslashes: int) -> tuple[npt.NDArray[np.int64], int]:
    """The quotes that begin or end a string in a piece, and the number of backslashes at its end.

    :param is_inside: whether the piece begins inside a string.
    :param backslashes: the number of backslashes directly before the piece.
    """
    quotes = np.flatnonzero(piece == _QUOTE)
    is_backslash = piece == _BACKSLASH
    if not is_backslash.any():
        first_is_escaped = bool(backslashes % 2 and is_inside and quotes.size and quotes[0] == 0)
        return (quotes[1:] if first_is_escaped else quotes), 0
    others = np.where(is_backslash, -1, np.arange(len(piece)))
    last_other = np.concatenate(([-1], np.maximum.accumulate(others)))
    # The number of backslashes directly before each position.
    runs = np.arange(len(piece) + 1) - 1 - last_other + np.where(last_other < 0, backslashes, 0)
    after_odd_run = runs[quotes] % 2 == 1
    plain, doubtful = quotes[~after_odd_run], quotes[after_odd_run]
    plain_before = np.searchsorted(plain, doubtful)
    if not ((plain_before + is_inside) % 2).all():
        # A backslash outside of a string escapes nothing, so each doubtful quote depends on those before it.
        begins = [False] * len(doubtful)
        more = int(is_inside)
        for number, before in enumerate(plain_before.tolist()):
            if (before + more) % 2 == 0:
                begins[number] = True
                more += 1
        plain = np.sort(np.concatenate((plain, doubtful[np.array(begins, bool)])))
    return plain, int(runs[-1])
