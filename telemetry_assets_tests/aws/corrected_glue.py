"""What moto's Glue Data Catalog gets wrong, put right."""

from __future__ import annotations

from dataclasses import dataclass

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.glue.responses import GlueResponse


@dataclass
class VersionLock:
    """Whether ``UpdateTable`` honours ``VersionId``; off shows what moto does by itself."""

    is_on: bool = True


VERSION_LOCK = VersionLock()


class CorrectedGlueResponse(GlueResponse):
    """Glue's answers."""

    def create_table(self) -> ActionResult:
        """Glue counts a table's versions from 0; moto from 1."""
        answer = super().create_table()
        parameters = self.parameters
        table = self.glue_backend.get_table(parameters["DatabaseName"], parameters["TableInput"]["Name"])
        table.versions = {"0": table.versions["1"]}
        table._current_version = 0
        return answer

    def update_table(self) -> ActionResult:
        """Glue refuses an update that is based on another version than the current one; moto takes every update."""
        expected = self.parameters.get("VersionId")
        if expected is not None and VERSION_LOCK.is_on:
            name = self.parameters["TableInput"]["Name"]
            table = self.glue_backend.get_table(self.parameters["DatabaseName"], name)
            if expected != str(table._current_version):
                raise JsonRESTError(
                    "ConcurrentModificationException", f"Update table failed due to concurrent modifications: {name}"
                )
        return super().update_table()
