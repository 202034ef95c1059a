"""The program that `test_kill_and_restart` starts as a process of its own: one run, which may kill itself.

``python -m telemetry_assets_tests.behaviours.killed_process [POINT]`` takes what waits to Gold. With a point,
such as ``before claiming #3`` or ``after the commit to silver.car_telemetry``, the process sends itself SIGKILL
there; where it never comes to that point, it ends as usual. Without one nothing of the product is touched.
"""

from __future__ import annotations

import functools
import inspect
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import Lock
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.orm import Session

from telemetry_assets.engines import embedded
from telemetry_assets.ingestion import batches
from telemetry_assets.ingestion.landing import FolderLanding
from telemetry_assets.ingestion.manifests import ManifestFile
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings

INSURANCE_AS_OF = date(2025, 6, 10)

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Boundary:
    """A function of the product, or of what it stands on, before and after which the process can be killed.

    :param owner: where the product looks the function up.
    :param step: what it does, as points have it; ``{}`` stands for what ``of`` says of a call's arguments.
    """

    owner: object
    function: str
    step: str
    of: Callable[[Arguments], str] = lambda _: ""


def _of_contract(call: Arguments) -> str:
    return str(call["contract"].full_name)


def _of_table(call: Arguments) -> str:
    return ".".join(call["table"].name())


def _of_location(call: Arguments) -> str:
    return ".".join(call["metadata"].location.split("/")[-2:])


BOUNDARIES = (
    Boundary(SqlCatalog, "create_table", "making {}", lambda call: ".".join(call["identifier"])),
    Boundary(ManifestFile, "create", "creating the manifest"),
    Boundary(os, "link", "linking the manifest"),
    Boundary(ManifestFile, "replace", "replacing the manifest"),
    Boundary(ManifestFile, "remove", "removing the manifest"),
    Boundary(FolderLanding, "claim", "claiming"),
    Boundary(FolderLanding, "read", "reading"),
    Boundary(FolderLanding, "archive", "archiving"),
    Boundary(FolderLanding, "finish", "forgetting the claims"),
    Boundary(Path, "rename", "renaming to {}", lambda call: Path(call["target"]).name),
    Boundary(shutil, "copy2", "copying {}", lambda call: Path(call["src"]).name),
    Boundary(batches, "append_batch", "appending to {}", _of_contract),
    Boundary(embedded, "replace_rows", "replacing rows of {}", _of_table),
    Boundary(embedded, "set_table_properties", "moving the mark of {}", _of_table),
    Boundary(SqlCatalog, "commit_table", "the commit to {}", _of_table),
    Boundary(SqlCatalog, "_write_metadata", "writing metadata of {}", _of_location),
    Boundary(Session, "commit", "ending the catalog's transaction"),
)


def die_at(point: str) -> None:
    """Wrap every boundary, so that the process is killed at ``point``, a moment, a step, and which call of it."""
    calls: Counter[str] = Counter()
    one_at_a_time = Lock()
    for boundary in BOUNDARIES:
        _wrap(boundary, lambda step: _numbered(step, calls, one_at_a_time), point)


def _numbered(step: str, calls: Counter[str], one_at_a_time: Lock) -> str:
    with one_at_a_time:
        calls[step] += 1
        return step if calls[step] == 1 else f"{step} #{calls[step]}"


def _wrap(boundary: Boundary, numbered: Callable[[str], str], point: str) -> None:
    original = getattr(boundary.owner, boundary.function)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        step = numbered(boundary.step.format(boundary.of(arguments)))
        _die_if(point == f"before {step}")
        result = original(*args, **kwargs)
        _die_if(point == f"after {step}")
        return result

    static = isinstance(inspect.getattr_static(boundary.owner, boundary.function), staticmethod)
    setattr(boundary.owner, boundary.function, staticmethod(wrapped) if static else wrapped)


def _die_if(here: bool) -> None:
    if here:
        os.kill(os.getpid(), signal.SIGKILL)


def main(points: list[str]) -> None:
    for point in points:
        die_at(point)
    with open_pipeline(load_settings()) as pipeline:
        pipeline.process("killed-and-restarted", insurance_as_of=INSURANCE_AS_OF)


if __name__ == "__main__":
    main(sys.argv[1:])
