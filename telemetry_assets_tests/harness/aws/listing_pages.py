"""The pages of S3's listings and their XML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape


@dataclass(frozen=True)
class Version:
    """A version of an object or a delete marker, as moto stores it."""

    content: Any
    is_latest: bool


@dataclass
class ListingPage:
    """One page of a listing.

    :param next_marker: key and version of the page's last entry; None on the last page.
    """

    versions: list[Version] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_marker: tuple[str, str] | None = None


def listing_page(
    keys: Mapping[str, list[Any]], prefix: str, delimiter: str, marker: tuple[str, str], limit: int
) -> ListingPage:
    """The page after a marker: a key and a version, or a key and None to skip all its versions."""
    page = ListingPage()
    last = marker
    for name, version in _after(marker, _entries(keys, prefix, delimiter)):
        if len(page.versions) + len(page.prefixes) >= limit:
            page.next_marker = last
            break
        if version is None:
            page.prefixes.append(name)
            last = (name, "")
        else:
            page.versions.append(version)
            last = (name, version.content.version_id)
    return page


def xml(tag: str, value: object) -> str:
    """An XML element, or one per entry of a list. moto's own writer takes most of a listing's time."""
    if isinstance(value, list):
        return "".join(xml(tag, one) for one in value)
    if isinstance(value, dict):
        return f"<{tag}>{''.join(xml(name, inner) for name, inner in value.items())}</{tag}>"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{tag}>{escape(text)}</{tag}>"


def _entries(keys: Mapping[str, list[Any]], prefix: str, delimiter: str) -> Iterator[tuple[str, Version | None]]:
    """Keys with their versions, newest first, and common prefixes with None."""
    common = None
    for name in sorted(keys):
        if not name.startswith(prefix):
            continue
        head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
        if found:
            if common != prefix + head + found:
                common = prefix + head + found
                yield common, None
            continue
        for position, content in enumerate(reversed(keys[name])):
            yield name, Version(content, is_latest=position == 0)


def _after(
    marker: tuple[str, str], entries: Iterator[tuple[str, Version | None]]
) -> Iterator[tuple[str, Version | None]]:
    marked_name, marked_version = marker
    is_passed = False
    for name, version in entries:
        if name > marked_name or (is_passed and name == marked_name):
            yield name, version
        elif name == marked_name and version is not None and version.content.version_id == marked_version:
            is_passed = True
