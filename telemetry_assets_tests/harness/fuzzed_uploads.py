"""Uploads for fuzzing, determined by a seed: valid and invalid framing, encoding, compression and names."""

from __future__ import annotations

import bz2
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from telemetry_assets_tests.harness.fuzzed_documents import WHITE_SPACE, fuzzed_text, realistic_documents

_OTHER_ENCODINGS = ("utf-16-le", "utf-16-be", "utf-32")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ENDINGS = (
    *(".json", ".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz"),
    *(".JSON", ".Json", ".json.GZ", ".JSONL.gz"),
)
_WRONG_ENDINGS = (
    *("", ".", ".json ", ".json.", ".json.gz.gz", ".jsonl.gzip", ".gz", ".csv", ".txt", ".GZ.JSON "),
    *(".json.zip", ".json\n", ".jsonlines", "json", ".json.bak", ".xml", ".json\u200b", ".\uff4ason", ".gz.json"),
)
# No names that begin with a dot or an underscore, or end in .tmp, .part or .crdownload: those belong to unfinished
# uploads, which are not ingested. No names that are not UTF-8: the pipeline escapes their bytes in `source_uri`,
# while the independent implementation has lone surrogates, which no table can store.
_NAMES = (
    *("upload", "with space", "per%20cent", "ha#sh", "que?ry", "plus+and&", "quo'te", 'quo"te', "semi;colon"),
    *("co:lon", "st*r", "back\\slash", "line\nbreak", "tab\t", "re\rturn", "bell\x07", "\x7f", "\u00e9", "e\u0301"),
    *("\u202eright", "\u2028", "\ufeff", "$HOME", "`id`", "~", "-rf", "a..b", "..", "{0}", "[0]", "x" * 200),
    *(
        "folder/upload",
        "2025-11-04/upload",
        "y=1/upload",
        "\u4e2d\u6587",
        "a/b/c/d/upload",
        "folder.json/upload",
        "c.gz/upload",
    ),
)
_PIECES = (
    *(b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\0", b"\0\0\0", b"\xef\xbb\xbf"),
    *(b"\n", b"\r\n", b"[", b"]", b"{", b"}", b'"', b",", b"\\", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b", b"\x1e"),
)


class FuzzedUpload(NamedTuple):
    """An upload's name below the landing location, and its bytes."""

    name: str
    content: bytes


def fuzzed_uploads(seed: int, *, large: int, small: int) -> Iterator[FuzzedUpload]:
    """``large`` uploads of tens of documents with little damage, and ``small`` uploads of a few with much damage."""
    random = Random(seed)
    documents = realistic_documents(seed)
    sizes = [random.randrange(25, 45) for _ in range(large)] + [random.choice((0, 1, 1, 2, 3, 5)) for _ in range(small)]
    random.shuffle(sizes)
    for number, size in enumerate(sizes):
        texts = [fuzzed_text(random, documents) for _ in range(size)]
        yield _fuzzed_upload(random, number, texts, 0.08 if size > 10 else 0.35)


def _fuzzed_upload(random: Random, number: int, texts: list[str], damage: float) -> FuzzedUpload:
    framing = random.choice(_ODD_FRAMINGS if random.random() < damage else _FRAMINGS)
    content = framing(random, texts).encode()
    if random.random() < 0.15:
        content = _BYTE_ORDER_MARK + content
    if random.random() < damage:
        content = random.choice(_DAMAGES)(random, content)
    ending = random.choice(_WRONG_ENDINGS if random.random() < damage / 4 else _ENDINGS)
    if random.random() < 0.1:
        content = content.decode("utf-8", "replace").encode("utf-16")
    is_compressed = ending.lower().endswith(".gz") != (random.random() < 0.1)
    if is_compressed:
        content = gzip.compress(content, 1, mtime=0)
    if random.random() < (damage if is_compressed else damage / 20):
        content = random.choice(_COMPRESSIONS)(random, content)
    folder, _, name = random.choice(_NAMES).rpartition("/")
    return FuzzedUpload(f"{folder}{'/' if folder else ''}{number:04d} {name}{ending}", content)


def _lines(random: Random, texts: list[str]) -> str:
    return random.choice(("\n", "\n", "\r\n", "\n\n", "\n \t\n", "\r\n\r\n")).join(texts) + random.choice(("", "\n"))


def _array(random: Random, texts: list[str]) -> str:
    separator = random.choice((",", ", ", ",\n", "\n,\n", ",\r\n\t"))
    space = random.choice(("", "", " ", "\n", "\r\n"))
    return f"{space}[{space}{separator.join(texts)}{space}]{space}"


def _joined(random: Random, texts: list[str]) -> str:
    separator = random.choice(("", "", " ", "\x1e", "\n\x1e", "\r\n", "\t"))
    return separator + separator.join(texts) + random.choice(("", separator, "\n"))


def _pretty_printed(random: Random, texts: list[str]) -> str:
    """Documents over several lines, in a sequence or in an array; some have a damaged line."""
    indent = random.choice((1, 2, 4, "\t"))
    return random.choice((_joined, _lines, _array))(random, [_indented(random, text, indent) for text in texts])


def _indented(random: Random, text: str, indent: int | str) -> str:
    try:
        lines = json.dumps(json.loads(text), indent=indent, ensure_ascii=False).splitlines()
    except (ValueError, RecursionError):
        return text
    if random.random() < 0.1:
        place = random.randrange(len(lines))
        damage = random.choice(("", "oops", lines[place][:-3], lines[place].replace('"', "", 1), "\n"))
        lines[place : place + random.randrange(2)] = [damage]
    return "\n".join(lines).encode("utf-8", "replace").decode()


def _separated_by_something_else(random: Random, texts: list[str]) -> str:
    separator = random.choice(("", " ", ",", ",\n", "\r", "\x1e", "\0", "\n,", ";\n", *WHITE_SPACE))
    return separator.join(texts) + random.choice(("", separator))


def _array_and_more(random: Random, texts: list[str]) -> str:
    more = random.choice(("x", "]", "[", "{}", "[]", "1", "\n{}", "\n[]", "\n1", "\nx"))
    return random.choice((more.strip() + "\n", "")) + _array(random, texts) + random.choice((more, ""))


def _array_that_breaks_off(random: Random, texts: list[str]) -> str:
    whole = _array(random, texts)
    return whole[: random.randrange(1, len(whole))]


def _arrays_in_lines(random: Random, texts: list[str]) -> str:
    return "\n".join(f"[{text}]" if random.random() < 0.5 else text for text in texts)


_FRAMINGS: tuple[Callable[[Random, list[str]], str], ...] = (
    *(_lines, _lines, _array, _array, _joined, _joined, _pretty_printed),
)
_ODD_FRAMINGS: tuple[Callable[[Random, list[str]], str], ...] = (
    *(_separated_by_something_else, _separated_by_something_else, _array_and_more, _array_that_breaks_off),
    _arrays_in_lines,
    lambda random, texts: f"[{','.join(texts)},]",
    lambda random, texts: f"[,{',,'.join(texts)}]",
    lambda random, texts: f"[[{','.join(texts)}]]",
    lambda random, texts: f'{{"documents": [{",".join(texts)}]}}',
    lambda random, texts: "\n".join(f"\ufeff{text}" for text in texts),
    lambda random, texts: "\n".join(f"// line\n{text}" for text in texts),
    lambda random, texts: random.choice(("", " ", "\n", "\u2028", "[", "]", "{", "[]", "[ ]\n", "{}", "null", "\0")),
)


def _flip_bits(random: Random, content: bytes) -> bytes:
    flipped = bytearray(content)
    for _ in range(random.randrange(1, 6) if content else 0):
        place = random.randrange(len(flipped))
        # Flags that gzip reserves: the pipeline refuses them as the format requires, while the oracle ignores them.
        is_flags = place == 3 and content.startswith(b"\x1f\x8b")
        flipped[place] ^= 1 << random.randrange(5 if is_flags else 8)
    return bytes(flipped)


def _insert(random: Random, content: bytes) -> bytes:
    for _ in range(random.randrange(1, 4)):
        place = random.choice((0, len(content), random.randrange(len(content) + 1)))
        content = content[:place] + random.choice(_PIECES) + content[place:]
    return content


def _delete(random: Random, content: bytes) -> bytes:
    place = random.randrange(len(content) + 1)
    return content[:place] + content[place + random.choice((1, 1, 5, 100, 5_000)) :]


def _cut_off(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _repeat_a_stretch(random: Random, content: bytes) -> bytes:
    start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:]


_DAMAGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_flip_bits, _flip_bits, _insert, _insert, _delete, _cut_off, _cut_off, _repeat_a_stretch),
    lambda random, content: content.decode("utf-8", "replace").encode(
        random.choice(("utf-16-le", "utf-16-be", "utf-32"))
    ),
    lambda random, content: content.decode("utf-8", "replace").encode("latin-1", "replace"),
    lambda random, content: _BYTE_ORDER_MARK * random.randrange(1, 3) + content,
    lambda random, content: random.randbytes(random.randrange(200)),
)


def _in_members(random: Random, content: bytes) -> bytes:
    """Several gzip members; one may be empty, and one may begin with a byte order mark."""
    text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    place = random.randrange(len(text) + 1)
    parts = [text[:place], random.choice((b"", b"\n", b"\xef\xbb\xbf")), text[place:]]
    padding = random.choice((b"", b"", b"\0" * 5, b"x"))
    return padding.join(gzip.compress(part, mtime=0) for part in parts)


def _with_a_long_header(random: Random, content: bytes) -> bytes:
    """A gzip header with a name, a comment and extra bytes, as other programs write."""
    body = content[10:] if content[:2] == b"\x1f\x8b" else content
    return b"\x1f\x8b\x08\x1c\0\0\0\0\0\x03\x04\0abcdname.json\0a comment\0" + body


_COMPRESSIONS: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_flip_bits, _cut_off, _delete, _in_members, _in_members, _with_a_long_header),
    lambda random, content: gzip.compress(content, mtime=0),
    lambda random, content: content + random.choice((b"\0", b"\0" * 512, b"\n", b"trailing", b"\x1f\x8b", b"\0\0x")),
    lambda random, content: random.choice((b"\0", b"\n", b"\xef\xbb\xbf")) + content,
    lambda random, content: random.choice((zlib.compress(content), bz2.compress(content), b"", b"\x1f\x8b\x08")),
    lambda random, content: random.choice(
        (b'{"a": 1}', b"[]", gzip.compress(b"", mtime=0), gzip.compress(b"[]", mtime=0))
    ),
    lambda random, content: content[:-8] + random.randbytes(8),
)
