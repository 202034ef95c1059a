"""Whether the product itself says that something is wrong, as somebody would ask it: by its commands."""

from __future__ import annotations

import os
import subprocess
import sys

from telemetry_assets.settings import Settings

_COMMANDS = ("doctor", "reconcile", "certificate")
_PROGRAM = (sys.executable, "-m", "telemetry_assets")
_NO_SUCH_COMMAND = 2


def complains(settings: Settings) -> bool:
    """Whether one of the commands that look at a deployment ends with a finding."""
    given = {f"TELEMETRY_{name.upper()}": str(getattr(settings, name)) for name in ("landing_uri", "lakehouse_uri")}
    environment = {**os.environ, **given, "TELEMETRY_CATALOG": settings.catalog}
    codes = [
        subprocess.run([*_PROGRAM, command], env=environment, capture_output=True, timeout=120, check=False).returncode
        for command in _COMMANDS
    ]
    return any(code not in (0, _NO_SUCH_COMMAND) for code in codes)
