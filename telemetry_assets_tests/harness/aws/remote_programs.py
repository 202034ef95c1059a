"""Programs as EMR Serverless and Glue run them, here: what was submitted, in a Python of its own, by spark-submit.

The states that a service goes through take a moment each. Tests order what is to go wrong (``remote_orders``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlparse

import boto3
import pyspark

from telemetry_assets.engines.spark.jars import jars
from telemetry_assets_tests.harness.aws.remote_orders import ORDERS, ordered

_SPARK = Path(pyspark.__file__).parent
_SECONDS_IN_STATE = 0.3
_KILLED_AFTER_SECONDS = 3
# What runs for seconds is not worth the second compiler's work, nor the machine's whole memory.
_SMALL = {
    "spark.master": "local[2]",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
}
_one_at_a_time = Lock()


ENDPOINT = [""]
PROGRAM = "program"
"""The access key of what runs in a service."""


@dataclass
class Program:
    """What a service is to run.

    :param script: its URI.
    :param states: those before the program starts, and while it runs.
    :param ends: what the service calls success, failure, stopping and a stopped run.
    :param image: what the service's image has in its environment, where it has installed the dependencies itself.
    :param changed: is told of each state.
    :param keep_log: is given the driver's log at the end.
    """

    script: str
    arguments: list[str]
    modules: str
    configuration: dict[str, str]
    dependencies: Callable[[], Path]
    states: tuple[str, ...]
    ends: tuple[str, str, str, str]
    image: Callable[[Path], dict[str, str]]
    changed: Callable[[str], None]
    keep_log: Callable[[bytes], None]
    state: str = ""
    details: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _cancelled: Event = field(default_factory=Event)

    def start(self) -> None:
        """Begin, in a thread."""
        self._order = next((one for kind in ("stay", "kill", "end") if (one := ordered(kind))), ("", ""))
        self._be(self.states[0])
        Thread(target=self._live, daemon=True).start()

    def cancel(self) -> None:
        """End it, as a request of a user does."""
        if self.state in self.ends[:2] or self._cancelled.is_set():
            return
        self._be(self.ends[2])
        self._cancelled.set()
        self.kill()

    def kill(self) -> None:
        """Every process of it at once."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _be(self, state: str, details: str = "") -> None:
        self.state, self.details = state, details
        self.changed(state)

    def _live(self) -> None:
        kind, given = self._order
        for state in self.states[1:]:
            if self._cancelled.wait(_SECONDS_IN_STATE):
                return self._be(self.ends[3])
            self._be(state)
        if kind == "end":
            return self._be(given, "Insufficient capacity: it was ordered so.")
        if kind == "stay":
            self._be(given)
            while not ORDERS.released.is_set() and not self._cancelled.wait(_SECONDS_IN_STATE):
                pass
        try:
            succeeded, log = (False, b"") if self._cancelled.is_set() else self._run()
        except Exception as error:
            return self._be(self.ends[1], f"The harness could not run it: {error}")
        if log:
            self.keep_log(log)
        if self._cancelled.is_set():
            time.sleep(_SECONDS_IN_STATE)
            return self._be(self.ends[3])
        return self._be(self.ends[0]) if succeeded else self._be(self.ends[1], "The program ended with an error.")

    def _run(self) -> tuple[bool, bytes]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            script, modules = (_brought(uri, folder) for uri in (self.script, self.modules))
            dependencies = self.dependencies()
            options = {**self.configuration, **_SMALL}
            for archive in filter(None, options.pop("spark.archives", "").split(",")):
                # As an archive named `#dependencies` is put beside the program.
                (folder / archive.split("#")[1]).symlink_to(dependencies)
            options["spark.jars"] = ",".join(_jars_here(options.get("spark.jars", "")))
            options["spark.submit.pyFiles"] = str(modules)
            environment = {
                name.removeprefix(_DRIVER): options.pop(name) for name in list(options) if name.startswith(_DRIVER)
            }
            python = _bare_python()
            # The image's Python is at another place here.
            environment |= dict.fromkeys(("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"), python)
            options |= {name: python for name in ("spark.executorEnv.PYSPARK_PYTHON",) if name in options}
            properties = folder / "spark.properties"
            properties.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
            command = [str(_SPARK / "bin" / "spark-submit"), "--properties-file", str(properties)]
            command += [str(script), *self.arguments]
            with (folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**_environment(folder), **self.image(dependencies), **environment},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            if self._cancelled.is_set():
                # It was cancelled while there was no process yet.
                self.kill()
            if self._order[0] == "kill":
                Thread(target=self._kill_soon, daemon=True).start()
            status = self._process.wait()
            return status == 0, (folder / "log").read_bytes()

    def _kill_soon(self) -> None:
        time.sleep(_KILLED_AFTER_SECONDS)
        self.kill()


_DRIVER = "spark.emr-serverless.driverEnv."
# Where each service keeps the Iceberg that it brings.
_ICEBERG = {"/usr/share/aws/iceberg/lib/iceberg-spark3-runtime.jar", "glue: --datalake-formats iceberg"}


def _jars_here(given: str) -> list[str]:
    """The jars that a program has: Iceberg only where it was asked for."""
    wanted = set(filter(None, given.split(",")))
    return [str(jar) for jar in jars()] if wanted & _ICEBERG else []


def service(name: str) -> Any:
    """A client of this server's own services, which keep what programs bring and leave."""
    return boto3.client(
        name,  # type: ignore[call-overload]  # any service
        endpoint_url=ENDPOINT[0],
        region_name=os.environ["AWS_REGION"],
        aws_access_key_id="harness",
        aws_secret_access_key="harness",
    )


def _brought(uri: str, folder: Path) -> Path:
    place = urlparse(uri)
    path = folder / place.path.rsplit("/", 1)[-1]
    service("s3").download_file(place.netloc, place.path.lstrip("/"), str(path))
    return path


def unpacked_archive(uri: str) -> Path:
    """The installed dependencies of an archive, as EMR Serverless puts them beside a program."""

    def unpack(archive: Path, folder: Path) -> None:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")

    return _unpacked(uri, unpack)


def installed_wheels(uri: str) -> Path:
    """The dependencies of a zip of wheels, installed from it alone, as Glue does."""

    def install(archive: Path, folder: Path) -> None:
        with tempfile.TemporaryDirectory() as name:
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(name)
            wheels = Path(name) / "wheels"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-compile", "--no-deps"]
            arguments = ["--find-links", str(wheels), "--target", str(folder), "-r", str(wheels / "requirements.txt")]
            subprocess.run([*pip, *arguments], check=True)

    return _unpacked(uri, install)


def _unpacked(uri: str, unpack: Callable[[Path, Path], None]) -> Path:
    with _one_at_a_time:
        folder = Path(_kept()) / uri.rsplit("/", 1)[-1]
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=_kept()) as name:
                drafted = Path(name) / "unpacked"
                drafted.mkdir()
                unpack(_brought(uri, Path(name)), drafted)
                drafted.rename(folder)
        return folder


@cache
def _kept() -> str:
    folder = tempfile.TemporaryDirectory(prefix="remote-programs-")
    _kept_folders.append(folder)
    return folder.name


_kept_folders: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _bare_python() -> str:
    """A Python that has nothing but itself, as the services' images do."""
    bare = Path(_kept()) / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    return str(bare / "bin" / "python")


def _environment(folder: Path) -> dict[str, str]:
    """What a service's container has in its environment: a role's credentials, and where AWS is."""
    passed = {name: os.environ[name] for name in ("PATH", "JAVA_HOME", "TMPDIR") if name in os.environ}
    return {
        **passed,
        "SPARK_HOME": str(_SPARK),
        "HOME": str(folder),
        "AWS_ENDPOINT_URL": ENDPOINT[0],
        "AWS_ACCESS_KEY_ID": PROGRAM,
        "AWS_SECRET_ACCESS_KEY": "program",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
