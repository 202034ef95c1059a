"""What the environment and ``.env`` say that no setting shows: misspelled names, and what Dagster would override."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from difflib import get_close_matches

from dotenv import dotenv_values

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import Settings, project_root


def unknown_settings() -> Iterator[tuple[str, str]]:
    """Each ``TELEMETRY_*`` variable that is no setting, with the setting that is spelled most like it, or nothing."""
    known = [f"TELEMETRY_{name.upper()}" for name in Settings.model_fields]
    given = {*os.environ, *dotenv_values(project_root() / ".env")}
    for name in sorted(given):
        if name.startswith("TELEMETRY_") and name not in known:
            yield name, next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), "")


def require_consistent_environment() -> None:
    """Refuse an environment that ``.env`` says otherwise of, before Dagster puts the file over it.

    `dagster dev` lets the file win, everything else the environment: one of both would not run as it was asked to.

    :raises SettingsError: naming each variable that differs.
    """
    of_file = dotenv_values(project_root() / ".env")
    differing = sorted(name for name, value in of_file.items() if os.environ.get(name, value) != value)
    if differing:
        raise SettingsError(
            f"{', '.join(differing)} in the environment and in {project_root() / '.env'} differ, and in the UI the "
            "file would win. Unset it in the environment, or change the file."
        )


if __name__ == "__main__":
    try:
        require_consistent_environment()
    except SettingsError as error:
        sys.exit(f"Error: {error}")
