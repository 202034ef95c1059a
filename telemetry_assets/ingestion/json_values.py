"""Where a JSON value ends in a text, and how deep it nests, also where Python's parser declines to say. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

MAX_NESTING = 900
"""Levels of objects and arrays in a document. Python's parser gives up near 1,000, depending on how deep
its caller is; a bound of our own gives the same answer wherever a document is parsed."""

MAX_DOCUMENT_CHARACTERS = 32 * 1024 * 1024
"""Characters of a document's text. Parsed, a document takes up to thirty times its text's memory."""

_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_DECODER = json.JSONDecoder()
_DIGITS_KEPT_DECODER = json.JSONDecoder(parse_int=str)


def nests_too_deep(text: str) -> bool:
    """Whether more than :data:`MAX_NESTING` objects and arrays are open at some place of a JSON text."""
    may = text.count("[") + text.count("{") > MAX_NESTING
    return may and any(depth > MAX_NESTING for _, depth in _brackets(text, 0))


def bracketed_end(text: str, start: int) -> int | None:
    """Where the object or array that begins at ``start`` ends, by its brackets alone; None where it does not end."""
    return next((end for end, depth in _brackets(text, start) if depth <= 0), None)


def _brackets(text: str, start: int) -> Iterator[tuple[int, int]]:
    """The position behind each bracket outside of texts, and how many are open there."""
    depth = 0
    for token in _BRACKETS.finditer(text, start):
        if token.group()[0] == '"':
            continue
        depth += 1 if token.group() in "[{" else -1
        yield token.end(), depth


def value_end(text: str, start: int) -> int | None:
    """Where the JSON value that begins at ``start`` ends; None where there is none.

    A value that is JSON and that Python declines (too deep, too many digits), or that is too long to be parsed, has
    an end all the same, so that it is rejected alone and not together with what follows it.
    """
    if len(text) - start > MAX_DOCUMENT_CHARACTERS and text[start] in "[{":
        end = bracketed_end(text, start)
        if end is None or end - start > MAX_DOCUMENT_CHARACTERS:
            return end
    try:
        return _DECODER.raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        return _end_before_error(text, start, error.pos)
    except ValueError:
        return _value_end_of_any_digits(text, start)
    except RecursionError:
        return bracketed_end(text, start)


def _value_end_of_any_digits(text: str, start: int) -> int | None:
    try:
        return _DIGITS_KEPT_DECODER.raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        return _end_before_error(text, start, error.pos)
    except RecursionError:
        return bracketed_end(text, start)


def _end_before_error(text: str, start: int, error: int) -> int | None:
    """The end of a broken value: none, unless it is too deep before it is broken, which Python may say or not."""
    return bracketed_end(text, start) if nests_too_deep(text[start:error]) else None
