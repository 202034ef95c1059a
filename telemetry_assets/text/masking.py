"""Masks secrets in settings. It recognizes them by the names of settings, and by patterns in their values."""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "…"

# The parts match anywhere in a name; at the end of a word, ignoring case; or as a whole word.
_ANYWHERE = r"secret|passw|passphrase|pwd|token|credential|signature|authorization|(?:api|access|private)[._-]?key"
_AT_THE_END = r"key|keys|pass|auth|cookie"
_WORD = r"pat|sas|sig|dsn"
_SECRET_NAME = re.compile(
    rf"(?i:{_ANYWHERE})|(?i:{_AT_THE_END})(?![^\W_])|"
    rf"(?:(?<![^\W_])(?i:{_WORD})|(?<=[a-z0-9])(?:{_WORD.title()}))(?![^\W_])"
)
# These names look like those of secrets, but their values only identify a key.
_NO_SECRET = re.compile(r"kms[._-]?key[._-]?(id|arn|alias)$", re.IGNORECASE)

_NAME = rf"(?:[\w.-]*(?:{_ANYWHERE})[\w.-]*|[\w.-]*(?:{_AT_THE_END})|(?:[\w.-]*[._-])?(?:{_WORD}))"
_QUOTED = r"\\*\"(?:[^\"\\]|\\.)*\"?|\\*'(?:[^'\\]|\\.)*'?"
# A value may begin with the scheme of a header, and may contain spaces in a list separated by semicolons.
_VALUE = rf"(?:{_QUOTED}|(?:(?:Bearer|Basic|Digest|Token)\s+)?[^\s&,;\"'}}]+(?:[^\n&,;\"'}}]*(?=;))?)"
_SHOWN = r"\g<shown>" + MASK
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A Java option with any name.
    (re.compile(r"(?P<shown>-D[^\s=]+=)(?:\"[^\"]*\"|'[^']*'|(?:\\.|\S)+)"), _SHOWN),
    # The user and password of a URL: up to the last @ before a slash, or after it if the password contains a slash.
    (re.compile(r"(?P<shown>//)(?:[^/\s\"]*|[^\s/@:\"]*:[^\s\"]*)(?=@)"), _SHOWN),
    # A parameter of a URL, a Java property, or an option of the command line.
    (re.compile(rf"(?P<shown>(?<![\w.-]){_NAME}\\*[\"']?\s*[=:]\s*){_VALUE}", re.IGNORECASE), _SHOWN),
    (re.compile(rf"(?P<shown>(?<!\S)--?{_NAME}\s+){_VALUE}", re.IGNORECASE), _SHOWN),
    (re.compile(r"(?P<shown>\b(?:Bearer|Basic)\s+)[\w.~+/=-]+", re.IGNORECASE), _SHOWN),
    (re.compile(r"\b(?P<shown>gh[pousr]_|github_pat_|glpat-|dapi|xox[a-z]-|sk-|hf_|AIza)[\w-]{8,}"), _SHOWN),
    # AWS's key ids, JSON web tokens, PEM.
    (re.compile(r"\b(?P<shown>A[KS]IA)[A-Z0-9]{16}\b"), _SHOWN),
    (re.compile(r"\b(?P<shown>eyJ)[\w-]+\.[\w-]+\.[\w-]*"), _SHOWN),
    (re.compile(r"(?P<shown>-----BEGIN [A-Z ]*PRIVATE KEY-----).*", re.DOTALL), _SHOWN),
)


def masked(name: str, value: object) -> object:
    """A setting's value with its secrets masked. In a mapping, each value is masked by its own name."""
    if isinstance(value, Mapping):
        return {str(inner): masked(str(inner), one) for inner, one in value.items()}
    if not isinstance(value, str):
        return value
    if value and not _NO_SECRET.search(name) and _SECRET_NAME.search(name):
        return MASK
    return masked_text(value)


def masked_text(text: str) -> str:
    """A text in which everything that looks like a secret is masked."""
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def is_secret(name: str, value: str) -> bool:
    """Whether :func:`masked` changes a setting's value."""
    return masked(name, value) != value
