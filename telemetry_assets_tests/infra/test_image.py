"""The image's Dagster is configured like the project's, except for storage."""

from __future__ import annotations

import re
from typing import Any

import pytest
from dagster_shared.yaml_utils import load_yaml_from_path

from telemetry_assets_tests.harness.terraform import INFRA

_PLACES = {"storage", "local_artifact_storage", "compute_logs"}


def settings_in(name: str) -> dict[str, Any]:
    read: Any = load_yaml_from_path(str(INFRA.parent / name))
    return {key: value for key, value in read.items() if key not in _PLACES}


def test_its_dagster_has_the_same_settings() -> None:
    assert settings_in("infra/image/dagster.yaml") == settings_in("dagster.yaml")


def test_it_loads_the_code_that_the_workspace_names() -> None:
    [own] = settings_in("workspace.yaml")["load_from"]
    [image] = settings_in("infra/image/workspace.yaml")["load_from"]
    assert image["grpc_server"]["location_name"] == own["python_module"]


def test_run_has_a_maximum_runtime_of_a_day() -> None:
    assert settings_in("infra/image/dagster.yaml")["run_monitoring"]["max_runtime_seconds"] == 24 * 3600


def test_sigterm_to_its_first_process_reaches_every_process() -> None:
    text = (INFRA / "image" / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["tini", "-g", "--"]' in text
    assert re.search(r"apt-get install .*\btini\b", text)


def test_it_is_built_on_a_digest_and_installs_files_of_known_checksums_only() -> None:
    text = (INFRA / "image" / "Dockerfile").read_text()
    assert re.findall(r"^FROM (.*)$", text, re.MULTILINE)[0].count("@sha256:") == 1
    installs = re.findall(r"pip install (.*)", text)
    assert all("--no-deps" in one for one in installs)
    assert [one for one in installs if "--requirement" in one and "--require-hashes" in one]


@pytest.mark.parametrize(
    ("builder", "pins"), [("Makefile", "constraints.txt"), ("infra/image/Dockerfile", "infra/image/requirements.txt")]
)
def test_the_project_is_built_with_a_tool_of_known_checksum(builder: str, pins: str) -> None:
    installs = re.findall(r"pip install .*--no-deps .*", (INFRA.parent / builder).read_text())
    [building] = [one for one in installs if "--require-hashes" not in one]
    # Otherwise pip installs the newest version in an isolated environment, regardless of pins.
    assert "--no-build-isolation" in building
    assert re.search(r"^setuptools==\S+ \\\n +--hash=sha256:", (INFRA.parent / pins).read_text(), re.MULTILINE)


def test_it_installs_the_pinned_versions() -> None:
    pins = (INFRA.parent / "constraints.txt").read_text()
    lines = re.split(r"\n(?=\S)", (INFRA / "image" / "requirements.txt").read_text())
    blocks = [line.strip() for line in lines if not line.startswith("#")]
    assert blocks
    assert [block for block in blocks if f"\n{block}\n" not in pins] == []
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in pins


def test_all_copied_files_are_in_the_build_context() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", (INFRA / "image" / "Dockerfile").read_text(), re.MULTILINE)
    sent = re.findall(r"^!(.*)$", (INFRA.parent / ".dockerignore").read_text(), re.MULTILINE)
    for source in " ".join(copied).split():
        assert (INFRA.parent / source).exists()
        assert any(source == one or source.startswith(f"{one}/") for one in sent), source
