"""Runs submitted programs as EMR Serverless and Glue do: with spark-submit, in a separate Python environment.

Each state of the service takes a moment. Tests plan failures in ``remote_orders``.
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
# Programs run for seconds only, so the C2 compiler and the machine's whole memory are not worth their cost.
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
"""The access key of programs that run in a service."""


@dataclass
class Program:
    """A program that a service runs.

    :param script: its URI.
    :param states: the states before the program starts and while it runs.
    :param ends: the service's states for success, failure, stopping and a stopped run.
    :param image: environment variables of the service's image, if it installs the dependencies itself.
    :param changed: called with each new state.
    :param keep_log: called with the driver's log at the end.
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
        """Start the program in a thread."""
        self._order = next((one for kind in ("stay", "kill", "end") if (one := ordered(kind))), ("", ""))
        self._set_state(self.states[0])
        Thread(target=self._run_to_end, daemon=True).start()

    def cancel(self) -> None:
        """Cancel the program, as a user's request does."""
        if self.state in self.ends[:2] or self._cancelled.is_set():
            return
        self._set_state(self.ends[2])
        self._cancelled.set()
        self.kill()

    def kill(self) -> None:
        """Kill all processes of the program at once."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _set_state(self, state: str, details: str = "") -> None:
        self.state, self.details = state, details
        self.changed(state)

    def _run_to_end(self) -> None:
        kind, given = self._order
        for state in self.states[1:]:
            if self._cancelled.wait(_SECONDS_IN_STATE):
                return self._set_state(self.ends[3])
            self._set_state(state)
        if kind == "end":
            return self._set_state(given, "Insufficient capacity: it was ordered so.")
        if kind == "stay":
            self._set_state(given)
            while not ORDERS.released.is_set() and not self._cancelled.wait(_SECONDS_IN_STATE):
                pass
        try:
            succeeded, log = (False, b"") if self._cancelled.is_set() else self._run()
        except Exception as error:
            return self._set_state(self.ends[1], f"The harness could not run it: {error}")
        if log:
            self.keep_log(log)
        if self._cancelled.is_set():
            time.sleep(_SECONDS_IN_STATE)
            return self._set_state(self.ends[3])
        return (
            self._set_state(self.ends[0])
            if succeeded
            else self._set_state(self.ends[1], "The program ended with an error.")
        )

    def _run(self) -> tuple[bool, bytes]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            script, modules = (_downloaded(uri, folder) for uri in (self.script, self.modules))
            dependencies = self.dependencies()
            options = {**self.configuration, **_SMALL}
            for archive in filter(None, options.pop("spark.archives", "").split(",")):
                # The folder of an archive that is submitted with `#dependencies`.
                (folder / archive.split("#")[1]).symlink_to(dependencies)
            options["spark.jars"] = ",".join(_jars_here(options.get("spark.jars", "")))
            options["spark.submit.pyFiles"] = str(modules)
            environment = {
                name.removeprefix(_DRIVER): options.pop(name) for name in list(options) if name.startswith(_DRIVER)
            }
            python = _bare_python()
            # The image's Python has another path here.
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
                # The run was cancelled before its process started.
                self.kill()
            if self._order[0] == "kill":
                Thread(target=self._kill_soon, daemon=True).start()
            status = self._process.wait()
            return status == 0, (folder / "log").read_bytes()

    def _kill_soon(self) -> None:
        time.sleep(_KILLED_AFTER_SECONDS)
        self.kill()


_DRIVER = "spark.emr-serverless.driverEnv."
# The folder of each service's own Iceberg jars.
_ICEBERG = {"/usr/share/aws/iceberg/lib/iceberg-spark3-runtime.jar", "glue: --datalake-formats iceberg"}


def _jars_here(given: str) -> list[str]:
    """The jars of a program: Iceberg only if it was requested."""
    wanted = set(filter(None, given.split(",")))
    return [str(jar) for jar in jars()] if wanted & _ICEBERG else []


def service(name: str) -> Any:
    """A client of this server's own services, which store the programs' inputs and outputs."""
    return boto3.client(
        name,  # type: ignore[call-overload]  # any service
        endpoint_url=ENDPOINT[0],
        region_name=os.environ["AWS_REGION"],
        aws_access_key_id="harness",
        aws_secret_access_key="harness",
    )


def _downloaded(uri: str, folder: Path) -> Path:
    place = urlparse(uri)
    path = folder / place.path.rsplit("/", 1)[-1]
    service("s3").download_file(place.netloc, place.path.lstrip("/"), str(path))
    return path


def unpacked_archive(uri: str) -> Path:
    """The unpacked dependencies of an archive, as EMR Serverless provides them."""

    def unpack(archive: Path, folder: Path) -> None:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")

    return _unpacked(uri, unpack)


def installed_wheels(uri: str) -> Path:
    """The dependencies of a zip of wheels, installed from it alone as in Glue."""

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
        folder = Path(_cache_folder()) / uri.rsplit("/", 1)[-1]
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=_cache_folder()) as name:
                drafted = Path(name) / "unpacked"
                drafted.mkdir()
                unpack(_downloaded(uri, Path(name)), drafted)
                drafted.rename(folder)
        return folder


@cache
def _cache_folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="remote-programs-")
    _kept_folders.append(folder)
    return folder.name


_kept_folders: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _bare_python() -> str:
    """A Python without packages, as in the services' images."""
    bare = Path(_cache_folder()) / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    return str(bare / "bin" / "python")


def _environment(folder: Path) -> dict[str, str]:
    """The environment variables of a service's container: a role's credentials and the endpoint of AWS."""
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
