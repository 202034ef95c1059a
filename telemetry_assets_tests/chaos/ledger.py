"""The uploads that producers have sent, and which of them must be in the archive exactly once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO

from telemetry_assets_tests.chaos.stages import Stage
from telemetry_assets_tests.harness.contract_reading import Upload


@dataclass
class Sent:
    """A sent upload.

    :param must: whether it must be ingested; one that is replaced or deleted while it waits may be ingested or not.
    """

    name: str
    content: bytes
    must: bool = True


@dataclass
class Growing:
    """A partial upload that its writer still has open."""

    sent: Sent
    file: BinaryIO
    rest: bytes


@dataclass(frozen=True)
class Finding:
    """An upload that is in the archive too often or too rarely."""

    name: str
    content: bytes
    sent: int
    must: int
    batches: tuple[str, ...]

    @property
    def is_double(self) -> bool:
        """Whether it is in the archive too often."""
        return len(self.batches) > self.sent

    def __str__(self) -> str:
        return (
            f"{self.name} {self.content[:80]!r} was sent {self.sent} times, had to be taken {self.must} times, and is "
            f"in the archive {len(self.batches)} times {list(self.batches)}"
        )


@dataclass
class Ledger:
    """All uploads of a deployment, in the order in which they were sent."""

    stage: Stage
    sent: list[Sent] = field(default_factory=list)
    grown: set[str] = field(default_factory=set)
    """The names of uploads that grew after they were sent."""
    _growing: list[Growing] = field(default_factory=list)

    def put(self, name: str, content: bytes) -> bool:
        """Send an upload.

        :raises OSError: if the disk has no space; the upload is then not sent.
        """
        displaced = self._release(name)
        # Recorded first, because it may be ingested as soon as it exists.
        self.sent.append(Sent(name, content))
        try:
            self.stage.put(name, content)
        except OSError:
            self.sent.pop()
            if displaced is not None:
                displaced.must = True
            raise
        return True

    def put_half(self, name: str, content: bytes, cut: int) -> bool:
        """Send the first bytes of an upload and keep its file open."""
        self.put(name, content[:cut])
        self._growing.append(Growing(self.sent[-1], self.stage.reopen(name), content[cut:]))
        return True

    def grow(self) -> int:
        """Write the rest of all partial uploads, wherever their files are now; return their number."""
        growing, self._growing = self._growing, []
        count = 0
        for one in growing:
            with one.file as file:
                # The rest of an unlinked file is lost, and no program can read it.
                if os.fstat(file.fileno()).st_nlink:
                    one.sent.content += one.rest[: file.write(one.rest)]
                    self.grown.add(one.sent.name)
                    count += 1
        return count

    @property
    def has_growing(self) -> bool:
        """Whether a partial upload still has to grow."""
        return bool(self._growing)

    def put_again(self, name: str) -> bool:
        """Send the last content of this name again; False if there is none."""
        latest = self._latest(name)
        if latest is not None:
            self.put(name, latest.content)
        return latest is not None

    def delete(self, name: str) -> bool:
        """Delete a waiting upload; False if none of this name waits."""
        if not self.stage.waits(name):
            return False
        self._release(name)
        self.stage.delete(name)
        return True

    def name_of(self, uri: str) -> str:
        """The name under which an upload with this URI was sent."""
        landing = self.stage.settings.landing_uri
        return uri.removeprefix(f"{landing if '://' in landing else f'file://{landing}'}/")

    def findings(self, archive: Mapping[str, Sequence[Upload]]) -> Iterator[Finding]:
        """Uploads that are in the archive more or less often than required."""
        taken = self._taken(archive)
        sent = Counter((one.name, one.content) for one in self.sent)
        must = Counter((one.name, one.content) for one in self.sent if one.must)
        for one in sorted({*sent, *taken}):
            batches = tuple(taken.get(one, []))
            if not must[one] <= len(batches) <= sent[one]:
                yield Finding(one[0], one[1], sent[one], must[one], batches)

    def disorder(self, archive: Mapping[str, Sequence[Upload]], moments: Mapping[str, datetime]) -> Iterator[str]:
        """Versions of one name that were ingested in another order than they were sent, so that the older one wins.

        A version that has grown may be ingested again after newer ones.
        """
        once = {one: batches[0] for one, batches in self._taken(archive).items() if one[0] not in self.grown}
        sent = Counter((one.name, one.content) for one in self.sent)
        yield from self._disorder({one: batch for one, batch in once.items() if sent[one] == 1}, moments)

    def _taken(self, archive: Mapping[str, Sequence[Upload]]) -> dict[tuple[str, bytes], list[str]]:
        taken: dict[tuple[str, bytes], list[str]] = {}
        for batch, uploads in archive.items():
            for upload in uploads:
                taken.setdefault((self.name_of(upload.source_uri), upload.content), []).append(batch)
        return taken

    def _disorder(self, batch_of: Mapping[tuple[str, bytes], str], moments: Mapping[str, datetime]) -> Iterator[str]:
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

    def _release(self, name: str) -> Sent | None:
        """Make the replaced version optional, unless it has been ingested."""
        latest = self._latest(name)
        if latest is None or not latest.must or not self.stage.waits(name):
            return None
        latest.must = False
        return latest
