"""Converts the content of an upload to text: file ending, compression and encoding.

Compression and encoding are determined by the content, because uploads are often named wrong.
"""

from __future__ import annotations

import codecs
import re
import zlib

from telemetry_assets.ingestion.parsing.documents import Reason
from telemetry_assets.ingestion.parsing.json_scan import Content, end_of

_ENDINGS = (".json", ".jsonl", ".ndjson")
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1024 * 1024
_LEAST_FED, _MOST_FED = 256, 16 * 1024
_GZIP_WINDOW = 31
_BLANK = re.compile(rb"[ \t\r\n\x1e]*")
# Zero bytes after a member are padding, as for gzip itself.
_PADDING = re.compile(rb"\0*")
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Formats that devices and delivery streams send by mistake, by the bytes that they begin with.
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive. Send the files in it",
    _GZIP_MAGIC: "compressed twice. Compress it once",
    b"BZh": "compressed with bzip2. Use gzip",
    b"\xfd7zXZ": "compressed with xz. Use gzip",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard. Use gzip",
    b"PAR1": "a Parquet file. Send JSON",
    b"Obj\x01": "an Avro file. Send JSON",
    **dict.fromkeys(_UTF_32, "UTF-32. Encode it as UTF-8"),
}


class UploadRejectedError(Exception):
    """An upload is rejected as a whole."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason: Reason = reason
        self.message = message


def text_content(name: str, content: bytes, max_bytes: int) -> Content:
    """The text of an upload, as UTF-8 without byte order mark.

    :param name: the upload's file name or key.
    :param content: its bytes, as stored.
    :param max_bytes: the limit of its bytes after decompression.
    :raises UploadRejectedError: if the ending is unsupported, the content is no text, or it is blank or too large.
    """
    if not name.lower().removesuffix(".gz").endswith(_ENDINGS):
        raise UploadRejectedError(
            "unsupported_ending",
            "An upload's name ends in .json, .jsonl or .ndjson, or one of these and .gz. Rename it and send it again.",
        )
    text: Content = content
    if content.startswith(_GZIP_MAGIC):
        text = _decompress(content, max_bytes)
    elif len(content) > max_bytes:
        raise _too_large(max_bytes)
    text = _utf8(text)
    if end_of(_BLANK, text, 0) == len(text):
        raise UploadRejectedError("empty_upload", "The upload is empty.")
    return text


def _utf8(text: Content) -> Content:
    """The text as UTF-8 without byte order mark."""
    if text.startswith(_UTF_16) and not text.startswith(_UTF_32):
        return _utf16_as_utf8(text)
    _require_utf8(text)
    return text[len(codecs.BOM_UTF8) :] if text.startswith(codecs.BOM_UTF8) else text


def _require_utf8(text: Content) -> None:
    """Check the encoding in pieces: a single rare character makes a decoded text four times as large."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _CHUNK):
        kept = len(decoder.getstate()[0])
        try:
            decoder.decode(text[start : start + _CHUNK], final=start + _CHUNK >= len(text))
        except UnicodeDecodeError as error:
            raise _not_text(text, f"byte {start - kept + error.start}: {error.reason}") from error


def _utf16_as_utf8(text: Content) -> bytearray:
    decoder = codecs.getincrementaldecoder("utf-16")()
    encoded = bytearray()
    try:
        for start in range(0, len(text), _CHUNK):
            encoded += decoder.decode(text[start : start + _CHUNK], final=start + _CHUNK >= len(text)).encode()
    except UnicodeDecodeError as error:
        raise UploadRejectedError(
            "not_utf8",
            f"The upload begins with the byte order mark of UTF-16, but is not UTF-16 ({error.reason}). It may have "
            "been cut off or joined with another file. Encode it as UTF-8.",
        ) from error
    return encoded


def _not_text(text: Content, problem: str) -> UploadRejectedError:
    found = next((form for magic, form in _OTHER_FORMATS.items() if text.startswith(magic)), None)
    advice = f"It looks like {found}." if found else "Encode it as UTF-8, or as UTF-16 with a byte order mark."
    return UploadRejectedError("not_utf8", f"The upload is not UTF-8 ({problem}). {advice}")


def _too_large(max_bytes: int) -> UploadRejectedError:
    return UploadRejectedError(
        "too_large",
        f"The upload is larger than {max_bytes:,} bytes after decompression. Send it in parts, or raise "
        "TELEMETRY_UPLOAD_MAX_BYTES. The archive keeps it.",
    )


def _decompress(content: bytes, max_bytes: int) -> bytearray:
    """Decompress all members of a gzip stream, up to ``max_bytes``.

    ``gzip.GzipFile`` is not used. It reads headers and padding byte by byte in Python, so 32 MiB of padding take 20 s
    instead of 0.2 s, a file name of 32 MiB takes 13 s instead of 0.1 s, and many small members take 3 to 4 times as
    long.
    """
    text = bytearray()
    position = 0
    try:
        while position < len(content):
            member = zlib.decompressobj(_GZIP_WINDOW)
            # In small pieces, because zlib copies the bytes after the end of a member.
            piece = _LEAST_FED
            while not member.eof:
                fed = content[position : position + piece]
                part = member.decompress(fed, _CHUNK)
                position += len(fed) - len(member.unconsumed_tail) - len(member.unused_data)
                if len(text) + len(part) > max_bytes:
                    raise _too_large(max_bytes)
                if not part and not fed and not member.eof:
                    raise zlib.error("it ends too early")
                text += part
                piece = min(2 * piece, _MOST_FED)
            position = end_of(_PADDING, content, position)
    except zlib.error as error:
        raise UploadRejectedError(
            "broken_gzip", f"The upload is not complete gzip data: {error}. Send it again."
        ) from error
    return text
