"""One Spark session for all tests of the transforms: Sail in this process, no JVM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from telemetry_assets_tests.harness.frames import Frames


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frames]:
    """DataFrames of a table's columns."""
    from telemetry_assets_tests.harness.frames import frames_in

    with frames_in(tmp_path_factory.mktemp("frames")) as frames:
        yield frames
