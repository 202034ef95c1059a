"""Athena that can forget a saved query, which moto's cannot."""

from __future__ import annotations

from moto.athena.responses import AthenaResponse


class CorrectedAthenaResponse(AthenaResponse):
    """Athena's answers."""

    def delete_named_query(self) -> str:
        """Forget a saved query."""
        self.athena_backend.named_queries.pop(self._get_param("NamedQueryId"), None)
        return "{}"
