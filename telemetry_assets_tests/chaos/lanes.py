"""Lanes play schedules concurrently, each in a separate process with its own AWS and workers."""

from __future__ import annotations

import os
import traceback
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from telemetry_assets_tests.chaos.aws_here import AwsHere
from telemetry_assets_tests.chaos.crew import Crew, Worker
from telemetry_assets_tests.chaos.disks import own_namespace
from telemetry_assets_tests.chaos.player import Outcome, Player
from telemetry_assets_tests.chaos.stages import BucketStage, FolderStage, Stage
from telemetry_assets_tests.chaos.steps import Schedule

_SPARE = 2


class Lane:
    """A stage and workers for each requested place."""

    def __init__(self, folder: Path, places: Collection[str]) -> None:
        temporary = folder / "tmp"
        temporary.mkdir(parents=True)
        self._environment = {"TMPDIR": str(temporary)}
        self._aws: dict[str, AwsHere] = {}
        self._stages: dict[str, Stage] = {}
        if "folder" in places:
            self._stages["folder"] = FolderStage(folder / "deployment")
        if "s3" in places:
            aws = self._aws["s3"] = AwsHere().__enter__()
            # The judge and the producer access AWS directly, without the workers' proxies.
            os.environ.update(aws.environment())
            self._stages["s3"] = BucketStage(aws)
        self._crews = {place: self._crew(place, "", _SPARE) for place in places}

    def play(self, schedule: Schedule) -> Outcome:
        """Play a schedule."""
        place, sabotage = schedule.place, schedule.sabotage
        crew = self._crew(place, sabotage, 1) if sabotage else self._crews[place]
        player = Player(schedule, self._stages[place], crew)
        try:
            return player.play()
        except Exception:
            player.outcome.problems.append(f"the schedule could not be checked:\n{traceback.format_exc()}")
            return player.outcome
        finally:
            if sabotage:
                crew.end()

    def _crew(self, place: str, sabotage: str, spare: int) -> Crew:
        return Crew(lambda: Worker(self._environment, self._aws.get(place), sabotage), spare)


_lane: list[Lane] = []


def _open(folder: str, places: Collection[str], has_disks: bool) -> None:
    if has_disks:
        own_namespace()
    _lane.append(Lane(Path(folder) / str(os.getpid()), places))


def _play(schedule: Schedule) -> Outcome:
    return _lane[0].play(schedule)


def played(schedules: Sequence[Schedule], lanes: int = 2) -> Iterator[Outcome]:
    """Yield the outcomes of schedules as they complete."""
    places = {schedule.place for schedule in schedules}
    has_disks = any(schedule.disk for schedule in schedules)
    with (
        TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder,
        ProcessPoolExecutor(
            min(lanes, len(schedules)), get_context("spawn"), initializer=_open, initargs=(folder, places, has_disks)
        ) as pool,
    ):
        for future in as_completed([pool.submit(_play, schedule) for schedule in schedules]):
            yield future.result()
