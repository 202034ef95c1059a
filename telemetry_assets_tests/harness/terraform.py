"""Runs Terraform in a copy of ``infra/``, with a provider from a folder if there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INFRA = Path(__file__).resolve().parent.parent.parent / "infra"
_PLUGINS = "tf-plugins"
_PLACES = ("/opt", "/usr/local/share", "/usr/share", str(Path.home()))
# The local services have one address, so bucket names cannot be subdomains of it.
_OVERRIDE = """
provider "aws" {
  s3_use_path_style       = true
  skip_metadata_api_check = true
  max_retries             = 2
}
"""


def terraform() -> str | None:
    """The path of Terraform or OpenTofu; None if neither is installed."""
    return shutil.which("terraform") or shutil.which("tofu")


def plugins() -> Path | None:
    """The folder of providers: ``TERRAFORM_PLUGIN_DIR`` or a ``tf-plugins`` in a usual place; None if there is none."""
    named = os.environ.get("TERRAFORM_PLUGIN_DIR")
    places = [Path(named)] if named else [Path(place) / _PLUGINS for place in _PLACES]
    return next((place for place in places if place.is_dir()), None)


class Configuration:
    """An initialized copy of ``infra/``.

    :param folder: the folder of the copy.
    :param environment: variables that Terraform gets in addition to this process's environment.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        shutil.copytree(INFRA, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        self.folder = folder
        self._environment = {**os.environ, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", **(environment or {})}
        (folder / "override.tf").write_text(_OVERRIDE)
        offline = [f"-plugin-dir={found}"] if (found := plugins()) else []
        self.run("init", "-backend=false", *offline)

    def run(self, command: str, *arguments: str) -> str:
        """Run a command and return its output.

        :raises AssertionError: with the output, if the command fails.
        """
        program = terraform()
        assert program is not None, "Terraform is not on this machine"
        asking = ["-input=false"] if command in ("init", "plan", "apply", "destroy", "import") else []
        uncolored = ["-no-color"] if command != "state" else []
        ended = subprocess.run(
            [program, command, *uncolored, *asking, *arguments],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def outputs(self) -> dict[str, Any]:
        """The outputs of the applied configuration."""
        raw = self.run("output", "-json")
        # Warnings can precede the JSON.
        return {name: one["value"] for name, one in json.loads(raw[raw.index("{") :]).items()}
