"""Masks secrets in settings, which are recognized by their names and by what they look like."""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "…"

_SECRET_NAME = re.compile(
    r"secret|passw|passphrase|pwd|token|credential|signature|authorization|api.?key|access.?key|private.?key|"
    r"(^|[._-])(key|pass|auth|pat|sas|sig)([._-]|$)",
    re.IGNORECASE,
)
# Names that a secret's would look like, and that only say where one is.
_NO_SECRET = frozenset({"kms_key_id"})
_SHOWN = r"\g<shown>" + MASK
_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A Java option: who knows what its name means.
    (re.compile(r"(?P<shown>-D[\w.-]+=)(?:\"[^\"]*\"|'[^']*'|\S+)"), _SHOWN),
    # The user and the password of a URL.
    (re.compile(r"(?P<shown>://)[^@\s]*:[^@\s]*(?=@)|(?P<alone>://)[^/@\s]+(?=@)"), r"\g<shown>\g<alone>" + MASK),
    # A parameter of a URL, a Java property or an option of the command line.
    (
        re.compile(
            r"(?P<shown>(?:[\w.-]*(?:secret|passw|pwd|token|credential|passphrase|signature|api.?key|access.?key|private.?key)"
            r"[\w.-]*|\b(?:key|sig|sas|pat|auth))[\"']?\s*[=:]\s*[\"']?)[^\s&,;\"'}]+",
            re.IGNORECASE,
        ),
        _SHOWN,
    ),
    (re.compile(r"(?P<shown>\b(?:Bearer|Basic)\s+)[\w.~+/=-]+", re.IGNORECASE), _SHOWN),
    (re.compile(r"\b(?P<shown>gh[pousr]_|github_pat_|dapi|xox[a-z]-)[\w-]{8,}"), _SHOWN),
    # AWS's key ids, JSON web tokens, PEM.
    (re.compile(r"\b(?P<shown>A[KS]IA)[A-Z0-9]{16}\b"), _SHOWN),
    (re.compile(r"\b(?P<shown>eyJ)[\w-]+\.[\w-]+\.[\w-]*"), _SHOWN),
    (re.compile(r"(?P<shown>-----BEGIN [A-Z ]*PRIVATE KEY-----).*", re.DOTALL), _SHOWN),
)


def masked(name: str, value: object) -> object:
    """A setting's value as it may be shown; of a mapping each value by its own name."""
    if isinstance(value, Mapping):
        return {str(inner): masked(str(inner), one) for inner, one in value.items()}
    if not isinstance(value, str):
        return value
    if value and name not in _NO_SECRET and _SECRET_NAME.search(name):
        return MASK
    return masked_text(value)


def masked_text(text: str) -> str:
    """A text without what looks like a secret."""
    for look, shown in _LOOKS:
        text = look.sub(shown, text)
    return text


def is_secret(name: str, value: str) -> bool:
    """Whether a setting's value is shown otherwise than it is."""
    return masked(name, value) != value
