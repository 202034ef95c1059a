"""moto's Athena, extended by the deletion of a saved query."""

from __future__ import annotations

from moto.athena.responses import AthenaResponse


class CorrectedAthenaResponse(AthenaResponse):
    """Athena's responses."""

    def delete_named_query(self) -> str:
        """Delete a saved query."""
        self.athena_backend.named_queries.pop(self._get_param("NamedQueryId"), None)
        return "{}"
