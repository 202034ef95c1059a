"""Reads JSON values one after another from UTF-8 text, and decides where a broken value ends.

Values are parsed by Python's parser in pieces of bounded size, so the memory beside the text is bounded. The time is
proportional to the length of the text: :attr:`JsonReader.is_exhausted` limits what broken values may cost.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from telemetry_assets.ingestion.parsing.json_scan import (
    MAX_DOCUMENT_CHARACTERS,
    WHITE_SPACE,
    Content,
    bracket_end,
    end_of,
    is_too_long,
    is_value,
    nests_too_deep,
    string_end,
    stripped_end,
    text_of,
    unquoted_end,
)

UNPARSED = object()
"""The parsed value of a text that Python has not parsed: it is broken, too deep, too long or has a huge number."""

_CHUNK = 256 * 1024
_DECODER = json.JSONDecoder()
# Integers stay text: only the end of the value is needed, and Python refuses to parse integers of many digits.
_LENIENT_DECODER = json.JSONDecoder(parse_int=str)
_BLANKS = re.compile(r"[ \t\r\n]*")
_INDENTATION = re.compile(rb"[ \t]*")
_NEXT_ELEMENT = re.compile(rb"[ \t\r\n]*(,[ \t\r\n]*\{|\][ \t\r\n]*\Z)")
_BLANK_LINES = re.compile(rb"(?:[ \t\r]*+\n)*+")
# At least the length of `-Infinity` and of an escape sequence, in which a chunk may end.
_LONGEST_WORD = 16
_UNTERMINATED = "Unterminated string"
_LINE_FEED, _RECORD_SEPARATOR = b"\n", b"\x1e"
_CLOSING = {b"{": b"}", b"[": b"]"}
_FIRST_SEARCH = 4 * 1024
_EFFORT_PER_BYTE, _LEAST_EFFORT = 4, 1024 * 1024


class JsonText(NamedTuple):
    """A value, or the text of a broken one.

    :param start: its first byte.
    :param end: the byte after it.
    :param text: its text; None if it is longer than :data:`MAX_DOCUMENT_CHARACTERS`.
    :param parsed: the value; :data:`UNPARSED` if Python has not parsed it.
    """

    start: int
    end: int
    text: str | None
    parsed: object = UNPARSED


class JsonReader:
    """A position in a text, from which values are read.

    :param content: the text in UTF-8.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self.position = 0
        # A decoded piece of the content up to the byte `_loaded`, and the place of `position` in it.
        self._chunk, self._place, self._loaded = "", 0, 0
        self._searched: dict[bytes, tuple[int, int]] = {}
        # The end of a line, and where its trailing white space begins.
        self._last_line = (-1, -1)
        self._effort = 0

    @property
    def is_at_end(self) -> bool:
        """Whether the whole text was read."""
        return self.position >= len(self._content)

    @property
    def is_exhausted(self) -> bool:
        """Whether the search for the ends of broken values has looked at four times the text."""
        return self._effort > _EFFORT_PER_BYTE * len(self._content) + _LEAST_EFFORT

    def peek(self) -> bytes:
        """The next byte; empty at the end."""
        return bytes(self._content[self.position : self.position + 1])

    def skip(self, separators: re.Pattern[bytes]) -> None:
        """Skip ASCII characters that match a pattern."""
        skipped = end_of(separators, self._content, self.position) - self.position
        self.position += skipped
        self._place += skipped

    def read(self) -> JsonText | None:
        """Read the value that begins here. None if no complete value begins here; the position stays."""
        if self._place >= len(self._chunk):
            self._load(_CHUNK)
        decoder, size, tried = _DECODER, _CHUNK, 0
        while True:
            try:
                parsed, end = decoder.raw_decode(self._chunk, self._place)
            except json.JSONDecodeError as error:
                if not self._may_continue(error):
                    return self._unparseable(error, tried)
            except RecursionError:
                return self._bracketed()
            except ValueError:
                decoder = _LENIENT_DECODER
                continue
            else:
                if not self._is_cut(end):
                    return self._taken(end, parsed if decoder is _DECODER else UNPARSED)
            if self._place == 0 and len(self._chunk) > MAX_DOCUMENT_CHARACTERS:
                return self._too_long()
            tried += len(self._chunk) - self._place
            size *= 2
            self._load(size)

    def take(self, end: int) -> JsonText:
        """Take the text up to ``end`` without parsing it."""
        start = self.position
        text = None if is_too_long(self._content, start, end) else text_of(self._content, start, end)
        if text is None or end > self._loaded:
            self._chunk, self._place, self._loaded = "", 0, 0
        else:
            self._place += len(text)
        self.position = end
        return JsonText(start, end, text)

    def take_rest(self) -> JsonText:
        """Take the rest of the text without parsing it, except white space at its end."""
        return self.take(stripped_end(self._content, self.position, len(self._content)))

    def line_end(self) -> int:
        """The end of the broken value that begins here, by its lines. docs/uploads.md, "How documents are found"."""
        content, start = self._content, self.position
        closing = _CLOSING.get(self.peek())
        end = line = self._line_end(start + 1)
        if closing is None or content[line : line + 1] != _LINE_FEED:
            return self._stripped_line_end(start, end)
        first_line = content.rfind(_LINE_FEED, 0, start) + 1
        indentation = end_of(_INDENTATION, content, first_line) - first_line
        while content[line : line + 1] == _LINE_FEED:
            next_line = end_of(_BLANK_LINES, content, line + 1)
            text = next_line + (indented := end_of(_INDENTATION, content, next_line) - next_line)
            line = self._line_end(text)
            text_end = stripped_end(content, text, line)
            if indented == indentation and content[text : text + 1] == closing:
                return text + 1
            if indented <= indentation or _is_object(content, text, text_end):
                break
            end = text_end
        return stripped_end(content, start, end)

    def element_end(self) -> int | None:
        """The end of the broken element of an array that begins here; None if it is not found."""
        # Nothing is searched beyond the lines of the element, where a stray quotation mark would hide other elements.
        start, line_end = self.position, self.line_end()
        end = self._closing_end(line_end) if self.peek() in _CLOSING else unquoted_end(self._content, start, line_end)
        if end is not None and self._next_byte(end) in (b",", b"]"):
            return end
        return stripped_end(self._content, start, line_end, b",") if self._next_byte(line_end) else None

    def _closing_end(self, line_end: int) -> int | None:
        """The end of the broken object or array that begins here, by its brackets; None if nothing closes it.

        After a stray quotation mark, text outside of strings looks like strings, and the reverse. So an earlier end,
        for which all brackets count, is preferred if the next element or the end of the array follows.
        """
        content, start = self._content, self.position
        size, all_count = _FIRST_SEARCH, True
        while True:
            # The time is proportional to the length of the element, because both ends are searched in the same piece.
            limit = min(start + size, line_end)
            end = bracket_end(content, start, limit)
            earlier = (
                bracket_end(content, start, limit if end is None else end - 1, skip_strings=False)
                if all_count
                else None
            )
            if earlier is not None:
                if _NEXT_ELEMENT.match(content, earlier):
                    return earlier
                all_count = False
            if end is not None:
                return end
            if limit == line_end:
                self._effort += line_end - start
                return None
            size *= 4

    def _stripped_line_end(self, start: int, line_end: int) -> int:
        """The end of a line without trailing white space. The last search is used again for the same line."""
        if self._last_line[0] != line_end:
            self._last_line = (line_end, stripped_end(self._content, start, line_end))
        return max(start, self._last_line[1])

    def _line_end(self, start: int) -> int:
        """The next line feed or record separator, or the end of the content."""
        return min(self._find(_LINE_FEED, start), self._find(_RECORD_SEPARATOR, start))

    def _find(self, character: bytes, start: int) -> int:
        """The next place of a character, or the end of the content. The last search is used again where possible."""
        searched_from, found = self._searched.get(character, (0, -1))
        if not searched_from <= start <= found:
            found = self._content.find(character, start)
            found = len(self._content) if found < 0 else found
            self._searched[character] = (start, found)
        return found

    def _next_byte(self, position: int) -> bytes:
        """The next byte that is not white space."""
        after = end_of(WHITE_SPACE, self._content, position)
        return bytes(self._content[after : after + 1])

    def _load(self, size: int) -> None:
        """Decode a piece of about ``size`` bytes that begins at the position."""
        start, end = self.position, min(self.position + size, len(self._content))
        while end < len(self._content) and self._content[end] & 0xC0 == 0x80:
            end -= 1
        text = text_of(self._content, start, end)
        if len(text) > MAX_DOCUMENT_CHARACTERS + 1:
            text = text[: MAX_DOCUMENT_CHARACTERS + 1]
            end = start + len(text.encode())
        self._chunk, self._place, self._loaded = text, 0, end

    def _may_continue(self, error: json.JSONDecodeError) -> bool:
        """Whether the value may only be broken because the chunk ends in it."""
        if self._loaded >= len(self._content):
            return False
        if error.msg.startswith(_UNTERMINATED):
            return True
        found = _BLANKS.match(self._chunk, error.pos)
        return (found.end() if found else error.pos) > len(self._chunk) - _LONGEST_WORD

    def _is_cut(self, end: int) -> bool:
        """Whether a number or literal may continue behind the chunk's end."""
        is_near_end = end > len(self._chunk) - _LONGEST_WORD and self._loaded < len(self._content)
        return is_near_end and self._chunk[end - 1] not in '}]"'

    def _taken(self, end: int, parsed: object) -> JsonText:
        text = self._chunk[self._place : end]
        start = self.position
        self.position += len(text) if text.isascii() else len(text.encode())
        self._place = end
        return JsonText(start, self.position, text if len(text) <= MAX_DOCUMENT_CHARACTERS else None, parsed)

    def _unparseable(self, error: json.JSONDecodeError, tried: int) -> JsonText | None:
        is_string = error.msg.startswith(_UNTERMINATED)
        self._effort += tried + (len(self._chunk) if is_string else error.pos) - self._place
        # If a text is too deep and also broken after that, Python reports one or the other.
        return self._bracketed() if nests_too_deep(self._chunk[self._place : error.pos]) else None

    def _bracketed(self) -> JsonText | None:
        """The object or array that begins here, by its brackets."""
        end = bracket_end(self._content, self.position, len(self._content)) if self.peek() in _CLOSING else None
        if end is None:
            self._effort += len(self._content) - self.position
            return None
        return self.take(end)

    def _too_long(self) -> JsonText | None:
        """The value that begins here and is longer than a document may be."""
        if self.peek() == b'"':
            end = string_end(self._content, self.position)
        elif self.peek() in _CLOSING:
            # It may be broken later, so it is not searched beyond its lines.
            end = bracket_end(self._content, self.position, self.line_end())
        else:
            end = None
        return None if end is None else self.take(end)


def _is_object(content: Content, start: int, end: int) -> bool:
    """Whether a part of the content is one complete object."""
    has_brackets = content[start : start + 1] == b"{" and content[end - 1 : end] == b"}"
    return has_brackets and is_value(content, start, end)
