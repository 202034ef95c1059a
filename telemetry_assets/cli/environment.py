"""Checks of the environment and of ``.env`` that settings cannot make themselves.

They find misspelled names, and values that ``dagster dev`` would override. ``make dev`` runs this module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from difflib import get_close_matches

from dotenv import dotenv_values

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import Settings, project_root


def unknown_settings() -> Iterator[tuple[str, str]]:
    """Each ``TELEMETRY_*`` variable that is not a setting, and the setting with the most similar name, or ``""``."""
    known = [f"TELEMETRY_{name.upper()}" for name in Settings.model_fields]
    given = {*os.environ, *dotenv_values(project_root() / ".env")}
    for name in sorted(given):
        if name.startswith("TELEMETRY_") and name not in known:
            yield name, next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), "")


def require_consistent_environment() -> None:
    """Check that no variable has one value in the environment and another one in ``.env``.

    In `dagster dev` the file takes precedence, and everywhere else the environment does. So if the two differed, the UI
    and the command line would use different settings.

    :raises SettingsError: naming each variable that differs.
    """
    of_file = dotenv_values(project_root() / ".env")
    differing = sorted(name for name, value in of_file.items() if os.environ.get(name, value) != value)
    if differing:
        raise SettingsError(
            f"{', '.join(differing)} in the environment and in {project_root() / '.env'} differ, and the UI would use "
            "the file. Unset it in the environment, or change the file."
        )


if __name__ == "__main__":
    try:
        require_consistent_environment()
    except SettingsError as error:
        sys.exit(f"Error: {error}")
