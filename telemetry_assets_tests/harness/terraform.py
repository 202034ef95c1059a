"""Terraform over ``infra/``, with the provider from a folder where no registry is reached, in a copy of its own."""

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
# The services stand at one address here, which is no domain that buckets could have names in.
_OVERRIDE = """
provider "aws" {
  s3_use_path_style       = true
  skip_metadata_api_check = true
  max_retries             = 2
}
"""


def terraform() -> str | None:
    """The program, or OpenTofu's; None where neither is on this machine."""
    return shutil.which("terraform") or shutil.which("tofu")


def plugins() -> Path | None:
    """The folder of providers that ``TERRAFORM_PLUGIN_DIR`` names or that stands where machines keep such; or None."""
    named = os.environ.get("TERRAFORM_PLUGIN_DIR")
    places = [Path(named)] if named else [Path(place) / _PLUGINS for place in _PLACES]
    return next((place for place in places if place.is_dir()), None)


class Configuration:
    """A copy of ``infra/`` that is initialized.

    :param folder: where the copy is made.
    :param environment: what Terraform finds beside this process's environment.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        shutil.copytree(INFRA, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        self.folder = folder
        self._environment = {**os.environ, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", **(environment or {})}
        (folder / "override.tf").write_text(_OVERRIDE)
        offline = [f"-plugin-dir={found}"] if (found := plugins()) else []
        self.run("init", "-backend=false", *offline)

    def run(self, command: str, *arguments: str) -> str:
        """What a command prints.

        :raises AssertionError: with all of it, where the command fails.
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
        """The outputs of what was applied."""
        raw = self.run("output", "-json")
        # A warning of the machine's own may stand before it.
        return {name: one["value"] for name, one in json.loads(raw[raw.index("{") :]).items()}
