"""What producers have sent, and what therefore has to be in the archive, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from telemetry_assets_tests.chaos.stages import Stage
from telemetry_assets_tests.contract_reading import Upload


@dataclass
class Sent:
    """One upload as it was sent.

    :param must: whether it has to be taken; one that is replaced or deleted while it waits may be taken or not.
    """

    name: str
    content: bytes
    must: bool = True


@dataclass
class Ledger:
    """All uploads of a deployment, in the order in which they were sent."""

    stage: Stage
    sent: list[Sent] = field(default_factory=list)

    def put(self, name: str, content: bytes) -> None:
        """Send an upload."""
        self._release(name)
        # Noted first: it may be taken the moment that it is there.
        self.sent.append(Sent(name, content))
        self.stage.put(name, content)

    def put_again(self, name: str) -> bool:
        """Send what was last sent under this name; False where nothing was."""
        latest = self._latest(name)
        if latest is not None:
            self.put(name, latest.content)
        return latest is not None

    def delete(self, name: str) -> bool:
        """Take an upload back; False where none of this name waits."""
        if not self.stage.waits(name):
            return False
        self._release(name)
        self.stage.delete(name)
        return True

    def problems(self, archive: Mapping[str, Sequence[Upload]], moments: Mapping[str, datetime]) -> Iterator[str]:
        """What the archive holds otherwise than it has to, by batch, of which the moments are given."""
        landing = self.stage.settings.landing_uri
        prefix = landing if "://" in landing else f"file://{landing}"
        taken: dict[tuple[str, bytes], list[str]] = {}
        for batch, uploads in archive.items():
            for upload in uploads:
                name = upload.source_uri.removeprefix(f"{prefix}/")
                taken.setdefault((name, upload.content), []).append(batch)
        sent = Counter((one.name, one.content) for one in self.sent)
        must = Counter((one.name, one.content) for one in self.sent if one.must)
        for one in sorted({*sent, *taken}):
            count, batches = len(taken.get(one, [])), taken.get(one, [])
            if not must[one] <= count <= sent[one]:
                yield (
                    f"{one[0]} {one[1][:80]!r} was sent {sent[one]} times, had to be taken {must[one]} times, and is "
                    f"in the archive {count} times {batches}"
                )
        yield from self._disorder({one: batches[0] for one, batches in taken.items() if sent[one] == 1}, moments)

    def _disorder(self, batch_of: Mapping[tuple[str, bytes], str], moments: Mapping[str, datetime]) -> Iterator[str]:
        """Versions of one name that were taken in another order than they were sent, so that the older one wins."""
        latest: dict[str, tuple[datetime, bytes]] = {}
        for one in self.sent:
            batch = batch_of.get((one.name, one.content))
            moment = moments.get(batch) if batch is not None else None
            if moment is None:
                continue
            if one.name in latest and latest[one.name][0] >= moment:
                yield (
                    f"{one.name} {one.content[:80]!r} was sent after {latest[one.name][1][:80]!r} and was ingested at "
                    f"{moment}, not after it at {latest[one.name][0]}"
                )
            latest[one.name] = (moment, one.content)

    def _latest(self, name: str) -> Sent | None:
        return next((one for one in reversed(self.sent) if one.name == name), None)

    def _release(self, name: str) -> None:
        """The version that a change displaces need not be taken, unless it has been."""
        latest = self._latest(name)
        if latest is not None and self.stage.waits(name):
            latest.must = False
