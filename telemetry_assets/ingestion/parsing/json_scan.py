"""Where JSON values end in an upload, and how deep they nest, also where Python's parser declines to say. Pure.

Everything here takes time and memory in proportion to the text, whatever is in it: brackets are looked for in pieces of
bounded size, and an array's brackets once, however many elements it has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_NESTING = 900
"""Levels of objects and arrays in a document. Python's parser gives up near 1,000, depending on how deep
its caller is; a bound of our own gives the same answer wherever a document is parsed."""

MAX_DOCUMENT_CHARACTERS = 8 * 1024 * 1024
"""Characters of a document's text. Parsed, a document takes up to thirty times its text's memory."""

Content = bytes | bytearray
"""UTF-8. All that structures JSON is ASCII, and no byte of another character is."""

_PIECE = 1024 * 1024
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_OPENING, _CLOSING = (ord("["), ord("{")), (ord("]"), ord("}"))
# Digits stay text: only where a value ends is asked, and Python declines to read integers of many digits.
_DECODER = json.JSONDecoder(parse_int=str)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
# As Python's parser has it, which this must agree with.
_STRICT_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"')
_WORDS = re.compile(rb'[^,"\[\]{}]*[^,"\[\]{} \t\r\n]')


def nests_too_deep(text: str) -> bool:
    """Whether more than :data:`MAX_NESTING` objects and arrays are open at some place of a JSON text."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    content = text.encode("utf-8", "surrogatepass")
    return is_nested_too_deep(content, 0, len(content))


def is_nested_too_deep(content: Content, start: int, end: int) -> bool:
    """See :func:`nests_too_deep`; of a part of a content that begins outside of strings."""
    return any(piece.depths.max(initial=0) > MAX_NESTING for piece in _brackets(content, start, end))


def text_of(content: Content, start: int, end: int) -> str:
    """A part of a content, without a copy of its bytes."""
    with memoryview(content) as view:
        return str(view[start:end], "utf-8")


def is_value(content: Content, start: int, end: int) -> bool:
    """Whether a part of a content is one JSON value, also one that Python declines: too deep, too long, huge numbers.

    :param start: where it begins, outside of strings.
    """
    if is_too_long(content, start, end):
        return _is_long_value(content, start, end)
    text = text_of(content, start, end)
    try:
        return _DECODER.raw_decode(text)[1] == len(text)
    except json.JSONDecodeError as error:
        # What is too deep before it is broken Python may call either.
        return nests_too_deep(text[: error.pos]) and _is_closed_at_its_end(content, start, end)
    except RecursionError:
        return _is_closed_at_its_end(content, start, end)


def _is_long_value(content: Content, start: int, end: int) -> bool:
    """See :func:`is_value`; without decoding, as one rare character makes a text four times as large."""
    if content[start] in _OPENING:
        return _is_closed_at_its_end(content, start, end)
    return content[start] == _QUOTE and _STRICT_STRING.fullmatch(content, start, end) is not None


def is_too_long(content: Content, start: int, end: int) -> bool:
    """Whether a part of a content has more than :data:`MAX_DOCUMENT_CHARACTERS`."""
    if end - start <= MAX_DOCUMENT_CHARACTERS:
        return False
    # Every byte but those that go on with a character.
    pieces = (np.frombuffer(content[at : min(at + _PIECE, end)], np.uint8) for at in range(start, end, _PIECE))
    return sum(int(np.count_nonzero((piece & 0xC0) != 0x80)) for piece in pieces) > MAX_DOCUMENT_CHARACTERS


def scalar_end(content: Content, start: int) -> int | None:
    """Where a text, a number or a word of JSON that begins at ``start`` ends; None where there is none."""
    is_text = content[start] == _QUOTE
    found = (_STRING if is_text else _WORDS).match(content, start)
    if found is None:
        return None
    if found.end() - start > MAX_DOCUMENT_CHARACTERS:
        # Whatever it is, it is too long.
        return found.end() if is_text else None
    # By its own text: an error counts all lines before it.
    text = found.group().decode("utf-8", "replace")
    try:
        end = _DECODER.raw_decode(text)[1]
    except ValueError:
        return None
    return found.end() if is_text else start + len(text[:end].encode())


def words_end(content: Content, start: int) -> int | None:
    """Where characters end that are no brackets, quotes or commas, without white space after them; None for none."""
    found = _WORDS.match(content, start)
    return found.end() if found else None


class ArrayBrackets:
    """Where the objects and arrays end that are elements of an array.

    :param start: where the array begins.
    """

    def __init__(self, content: Content, start: int) -> None:
        self._ends = _element_ends(content, start)
        self._next = -1

    def end(self, start: int) -> int | None:
        """Where the element that begins at ``start`` with a bracket ends, by brackets alone; None where it does not.

        :param start: behind the elements that were asked for before.
        """
        while self._next <= start:
            found = next(self._ends, None)
            if found is None:
                return None
            self._next = found
        return self._next


def _element_ends(content: Content, start: int) -> Iterator[int]:
    for piece in _brackets(content, start, len(content)):
        yield from (piece.positions[piece.depths <= 1] + 1).tolist()


def _is_closed_at_its_end(content: Content, start: int, end: int) -> bool:
    """Whether the brackets of a part that begins with one are closed at its end for the first time."""
    for piece in _brackets(content, start, end):
        closed = piece.positions[piece.depths <= 0]
        if closed.size:
            return int(closed[0]) == end - 1
    return False


@dataclass(frozen=True)
class _Piece:
    """Some of a text's brackets outside of strings: where they are, and how many are open behind each."""

    positions: npt.NDArray[np.int64]
    depths: npt.NDArray[np.int64]


def _brackets(content: Content, start: int, end: int) -> Iterator[_Piece]:
    """The brackets outside of strings from a position on, which is outside of strings, in pieces."""
    is_inside, backslashes, depth = False, 0, 0
    for begin in range(start, end, _PIECE):
        piece = np.frombuffer(content[begin : min(begin + _PIECE, end)], np.uint8)
        quotes, backslashes = _quotes(piece, is_inside, backslashes)
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


def _quotes(piece: npt.NDArray[np.uint8], is_inside: bool, backslashes: int) -> tuple[npt.NDArray[np.int64], int]:
    """Where strings begin and end in a piece, and how many backslashes it ends with.

    :param is_inside: whether a string is open where the piece begins.
    :param backslashes: how many backslashes stand right before it.
    """
    quotes = np.flatnonzero(piece == _QUOTE)
    is_backslash = piece == _BACKSLASH
    if not is_backslash.any():
        first_is_escaped = bool(backslashes % 2 and is_inside and quotes.size and quotes[0] == 0)
        return (quotes[1:] if first_is_escaped else quotes), 0
    others = np.where(is_backslash, -1, np.arange(len(piece)))
    last_other = np.concatenate(([-1], np.maximum.accumulate(others)))
    # How many backslashes stand right before each position.
    runs = np.arange(len(piece) + 1) - 1 - last_other + np.where(last_other < 0, backslashes, 0)
    after_odd_run = runs[quotes] % 2 == 1
    plain, doubtful = quotes[~after_odd_run], quotes[after_odd_run]
    plain_before = np.searchsorted(plain, doubtful)
    if not ((plain_before + is_inside) % 2).all():
        # A backslash outside of a string escapes nothing, so each of these quotes depends on those before it.
        begins = [False] * len(doubtful)
        more = int(is_inside)
        for number, before in enumerate(plain_before.tolist()):
            if (before + more) % 2 == 0:
                begins[number] = True
                more += 1
        plain = np.sort(np.concatenate((plain, doubtful[np.array(begins, bool)])))
    return plain, int(runs[-1])
