"""The documentation matches the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

from telemetry_assets.ingestion.parsing.documents import Reason
from telemetry_assets.ingestion.parsing.json_scan import MAX_DOCUMENT_CHARACTERS, MAX_NESTING
from telemetry_assets.settings import MEBIBYTE, Settings
from telemetry_assets.tables.documentation import tables_page

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"


def test_the_page_of_tables_is_written_from_the_contracts() -> None:
    assert (DOCS / "tables.md").read_text() == tables_page()


def test_every_setting_is_documented_with_its_default() -> None:
    page = (DOCS / "operating.md").read_text()
    # Settings without a value have a default that depends on something else.
    for name, field in Settings.model_fields.items():
        default = field.default if field.default_factory is None and field.default is not None else ""
        assert f"| `TELEMETRY_{name.upper()}` | `{default}` |" in page


def test_every_reason_of_a_rejection_is_documented() -> None:
    page = (DOCS / "uploads.md").read_text()
    assert all(f"`{reason}`" in page for reason in get_args(Reason))


def test_the_policy_for_uploaders_is_valid() -> None:
    [policy] = re.findall(r"```json\n(.*?)```", (DOCS / "security.md").read_text(), re.DOTALL)
    statements = json.loads(policy)["Statement"]
    assert [one["Effect"] for one in statements] == ["Allow", "Deny", "Deny", "Deny", "Deny"]
    assert all(one["Action"] == "s3:PutObject" and one["Principal"] for one in statements)
    assert all("Condition" in one for one in statements if one["Effect"] == "Deny")


def test_the_bounds_of_an_upload_are_those_of_the_code() -> None:
    page = (DOCS / "security.md").read_text()
    fields = Settings.model_fields
    assert f"`TELEMETRY_UPLOAD_MAX_BYTES`, {fields['upload_max_bytes'].default // MEBIBYTE} MiB" in page
    for name in ("documents", "event_dates", "field_names", "broken_documents"):
        assert f"{name.upper()}` {fields[f'upload_max_{name}'].default:,}" in page
    assert f"{MAX_DOCUMENT_CHARACTERS:,}; {MAX_NESTING}" in page


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *(ROOT / "infra").rglob("README.md"),
        *DOCS.glob("*.md"),
    ):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_file_that_contributors_are_sent_to_exists() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"(?:telemetry_assets|telemetry_assets_tests|docs|infra)/[\w/.]*", page)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_target_that_contributors_run_exists() -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"\bmake ([a-z][a-z0-9-]*)", (ROOT / "CONTRIBUTING.md").read_text())
    assert set(named) - set(targets) == set()


def test_every_marker_is_explained_to_contributors() -> None:
    markers = re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert markers == ["browser", "long", "alone", "exhaustive"]
    assert all(f"| `{marker}` |" in (ROOT / "CONTRIBUTING.md").read_text() for marker in markers)
