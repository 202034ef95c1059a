"""A kill at each step of a batch and of each table's refresh, then a restart: nothing is lost or duplicated.

A story is a sequence of events in one deployment: uploads arrive, runs start and are killed. It must have the same
result as without kills. `killed_process` defines the points at which a run can be killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from telemetry_assets.tables import derived_tables
from telemetry_assets_tests.harness.killed_process import Evidence, LateMount, Run, Stage, Story, Unreadable
from telemetry_assets_tests.harness.sent_uploads import (
    CORRECTION,
    FIRST,
    FIRST_WITH_REPLACEMENT,
    LARGE_IN_ROWS,
    LARGE_REPLACEMENT,
    ONLY_REJECTS,
    REPETITION,
    REPLACEMENT,
)

RESTART = Run()
BOUNDED_RESTART = Run(batch_max_bytes=20_000)
DERIVED = [table.full_name for table in derived_tables()]
GOLD = DERIVED[1:]

# The first run creates the tables and writes their first metadata files.
POINTS_OF_A_FIRST_RUN = (
    "before creating silver.car_telemetry",
    "after writing metadata of silver.car_telemetry",
    "after creating gold.performance_alerts",
    "before creating the journal",
    "before linking the journal",
    "after linking the journal",
    "before claiming",
    "after keeping the place of trips.json",
    "after claiming #3",
    "before reading",
    "before the commit to bronze.rejected_documents",
    "after writing metadata of bronze.rejected_documents #2",
    "after the commit to bronze.rejected_documents",
    "before the commit to bronze.car_telemetry",
    "after writing metadata of bronze.car_telemetry #2",
    "after the commit to bronze.car_telemetry",
    "before the commit to bronze.uploads",
    "after writing metadata of bronze.uploads #3",
    "after the commit to bronze.uploads",
    "before archiving",
    "after archiving #3",
    "before removing the claim folders",
    "before removing the journal",
    "after removing the journal",
    *(f"before replacing rows of {table}" for table in DERIVED),
    *(f"after writing metadata of {table} #2" for table in DERIVED),
)
POINTS_OF_A_CORRECTION = (
    "before ending the catalog's transaction #2",
    "after writing metadata of bronze.car_telemetry",
    "after the commit to bronze.car_telemetry",
    "before the commit to silver.car_telemetry",
    *(f"after writing metadata of {table}" for table in DERIVED),
    *(f"after replacing rows of {table}" for table in DERIVED),
)


def killed(
    *points: str,
    before: Story,
    after: Story = (RESTART,),
    undisturbed: Story = (FIRST, RESTART),
    batch_max_bytes: int | None = None,
) -> pytest.MarkDecorator:
    """One story per point, with a run that is killed there; `then` joins the points of several runs."""
    stories = [(*before, *(Run(point, batch_max_bytes) for point in one.split(" then ")), *after) for one in points]
    return pytest.mark.parametrize(("undisturbed", "story"), [(undisturbed, story) for story in stories], ids=points)


Ending = Callable[[Story], Evidence]


@pytest.fixture(scope="module")
def ending(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ending]:
    """Returns the result of a story. The stories of all selected tests are played in advance, two at a time."""
    folders = [tmp_path_factory.mktemp("stage") for _ in range(2)]
    players = [(ThreadPoolExecutor(1), Stage(folder, folder / "landing")) for folder in folders]
    turns = cycle(players)
    endings: dict[Story, Future[Evidence]] = {}

    def started(story: Story) -> Future[Evidence]:
        if story not in endings:
            thread, stage = next(turns)
            endings[story] = thread.submit(stage.play, story)
        return endings[story]

    chosen = [getattr(item, "callspec", None) for item in request.session.items if item.parent is request.node]
    for name in ("undisturbed", "story"):
        for parameters in chosen:
            if parameters and name in parameters.params:
                started(parameters.params[name])
    yield lambda story: started(story).result()
    for thread, _ in players:
        thread.shutdown(cancel_futures=True)


def test_undisturbed_runs_ingest_everything_and_leave_nothing_to_do(ending: Ending) -> None:
    corrected = ending((FIRST, RESTART, CORRECTION, RESTART))

    assert corrected.archive == sorted(FIRST.uploads + CORRECTION.uploads)
    assert [len(corrected.tables[f"bronze.{table}"]) for table in ("car_telemetry", "rejected_documents")] == [8, 4]
    assert (corrected.still_in_landing, corrected.batch_in_progress, corrected.tables_behind) == ([], False, [])


def test_correction_removes_a_value_from_the_current_state(ending: Ending) -> None:
    def winner(evidence: Evidence) -> str:
        (state,) = (row for row in evidence.tables["gold.car_current_state"] if "car_chassis: CAR-A" in row)
        return state.partition("current_mileage_km_event_id: ")[2][:5]

    assert winner(ending((FIRST, RESTART))) == "evt-3"
    assert winner(ending((FIRST, RESTART, CORRECTION, RESTART))) == "evt-2"


@pytest.mark.long
@killed(*POINTS_OF_A_FIRST_RUN, before=(FIRST,))
def test_restart_repairs_a_killed_first_run(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(*POINTS_OF_A_CORRECTION, before=(FIRST, RESTART, CORRECTION), undisturbed=(FIRST, RESTART, CORRECTION, RESTART))
def test_restart_repairs_a_killed_correction(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(
    "before moving the watermark of gold.car_current_state",
    *(f"after writing metadata of {table}" for table in GOLD),
    *(f"after moving the watermark of {table}" for table in GOLD),
    before=(FIRST, RESTART, REPETITION),
    undisturbed=(FIRST, RESTART, REPETITION, RESTART),
)
def test_restart_repairs_a_killed_run_that_changes_no_gold(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(
    "after the commit to bronze.rejected_documents",
    "after writing metadata of bronze.uploads",
    before=(FIRST, RESTART, ONLY_REJECTS),
    undisturbed=(FIRST, RESTART, ONLY_REJECTS, RESTART),
)
def test_restart_repairs_a_killed_run_with_rejects_only(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@killed(
    "after claiming #2 then before the commit to bronze.car_telemetry",
    "after appending to bronze.rejected_documents then after writing metadata of bronze.car_telemetry",
    "after the commit to bronze.car_telemetry then after archiving #2",
    "before archiving then before archiving",
    "before the commit to silver.car_telemetry then after the commit to silver.car_telemetry",
    "after the commit to silver.car_telemetry then after writing metadata of gold.car_current_state",
    before=(FIRST,),
)
def test_restart_repairs_two_killed_runs(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(
    "after claiming #3",
    "after appending to bronze.rejected_documents",
    "after the commit to bronze.car_telemetry",
    before=(FIRST,),
    after=(CORRECTION, Run("after creating the journal"), RESTART),
    undisturbed=(FIRST, RESTART, CORRECTION, RESTART),
)
def test_uploads_that_arrive_between_kills_are_ingested_next(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(
    "after claiming #5",
    "after appending to bronze.rejected_documents",
    "after the commit to bronze.car_telemetry",
    "after removing the journal",
    before=(FIRST,),
    after=(REPLACEMENT, RESTART),
    undisturbed=(FIRST, RESTART, REPLACEMENT, RESTART),
)
def test_an_upload_replaced_after_its_claim_is_a_new_upload(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(
    "before creating the journal",
    "before claiming",
    before=(FIRST,),
    after=(REPLACEMENT, RESTART),
    undisturbed=(FIRST_WITH_REPLACEMENT, RESTART),
)
def test_upload_replaced_before_its_claim_is_ingested_once(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(
    "before replacing the journal",
    "after the commit to bronze.car_telemetry",
    "before releasing",
    "after releasing",
    "after removing the journal",
    "after claiming #4",
    batch_max_bytes=BOUNDED_RESTART.batch_max_bytes,
    before=(LARGE_IN_ROWS,),
    after=(LARGE_REPLACEMENT, BOUNDED_RESTART),
    undisturbed=(LARGE_IN_ROWS, BOUNDED_RESTART, LARGE_REPLACEMENT, BOUNDED_RESTART),
)
def test_deferred_upload_is_ingested_before_its_replacement(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(
    "before renaming to in_progress.json",
    "after replacing the journal",
    "after the commit to bronze.car_telemetry then after archiving #2",
    before=(FIRST, Run("before claiming"), REPLACEMENT),
    undisturbed=(FIRST_WITH_REPLACEMENT, RESTART),
)
def test_restart_repairs_a_batch_that_loses_an_upload(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(
    "before renaming to in_progress.json",
    before=(FIRST, Run("before reading"), Unreadable("one.json")),
    after=(Unreadable("one.json", no_longer=True), RESTART),
)
def test_upload_readable_before_it_is_given_up_is_ingested(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.mark.long
@killed(
    "after replacing the journal",
    "after the commit to bronze.rejected_documents",
    before=(FIRST, Run("before reading"), Unreadable("one.json")),
    after=(Unreadable("one.json", no_longer=True), RESTART),
)
def test_an_upload_given_up_before_the_kill_stays_rejected(story: Story, undisturbed: Story, ending: Ending) -> None:
    ended = ending(story)

    assert not any("one.json" in row for row in ended.tables["bronze.car_telemetry"])
    rejections = [row for row in ended.tables["bronze.rejected_documents"] if "one.json" in row]
    assert rejections == ["reason: unreadable_upload, source_position: None, source_uri: one.json"]
    assert replace(ended, tables={}) == replace(ending(undisturbed), tables={})


@pytest.mark.long
@killed("before reading", "after the commit to bronze.car_telemetry", before=(FIRST,), after=(LateMount(), RESTART))
def test_claimed_uploads_outlast_a_missing_landing_folder(story: Story, undisturbed: Story, ending: Ending) -> None:
    assert ending(story) == ending(undisturbed)


@pytest.fixture
def stage_over_two_file_systems(tmp_path: Path, other_disk: Path) -> Stage:
    return Stage(tmp_path, other_disk / "landing")


# The first rename, to the lakehouse, fails; the second is to a claim in the landing folder; the third, to the archive,
# fails; the fourth renames the copy.
@pytest.mark.parametrize(
    "point", ["after copying readings.ndjson", "after renaming to readings.ndjson #4", "before copying trips.json"]
)
def test_restart_repairs_a_killed_copy_to_an_archive_on_another_file_system(
    point: str, stage_over_two_file_systems: Stage, ending: Ending
) -> None:
    assert stage_over_two_file_systems.play((FIRST, Run(point), RESTART)) == ending((FIRST, RESTART))
