"""Paths of files as URIs, which are text: a path may hold any bytes, and no two paths have one URI."""

from __future__ import annotations

import os
import re

_SCHEME = "file://"
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def file_uri(path: str) -> str:
    """The URI of a file; :func:`path_of` gives the path back."""
    return f"{_SCHEME}{printable(path)}"


def path_of(uri: str) -> str:
    """The path of the file that :func:`file_uri` has given a URI."""
    # What is no UTF-8 although it is text, such as half of a surrogate pair, is in no URI of a file.
    written = uri.removeprefix(_SCHEME).encode("utf-8", "backslashreplace")
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), written))


def printable(path: str) -> str:
    r"""A path as text that UTF-8 can hold; a byte of it that is not UTF-8 shows as an escape, such as ``\xff``.

    Where the path itself has the characters of an escape, its backslash is one (``\x5c``).
    """
    written = _ESCAPED.sub(rb"\\x5cx\1", os.fsencode(path))
    return written.decode("utf-8", "backslashreplace")
