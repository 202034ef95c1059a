"""Whether the product's own commands report a problem."""

from __future__ import annotations

import os

from telemetry_assets.settings import Settings
from telemetry_assets_tests.harness.forked import ForkedProgram

_COMMANDS = ("doctor", "reconcile", "certificate")
_NO_SUCH_COMMAND = 2
_LONGEST = 120


def complains(settings: Settings) -> bool:
    """Whether one of the commands that check a deployment exits with a finding."""
    given = {f"TELEMETRY_{name.upper()}": str(getattr(settings, name)) for name in ("landing_uri", "lakehouse_uri")}
    environment = {**os.environ, **given, "TELEMETRY_CATALOG": settings.catalog}
    ends = (ForkedProgram(_command, name, environment=environment).wait(_LONGEST)[0] for name in _COMMANDS)
    return any(code not in (0, _NO_SUCH_COMMAND) for code in ends)


def _command(name: str) -> None:
    from telemetry_assets.cli.main import main

    main([name])
