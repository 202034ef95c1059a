"""Terraform accepts ``infra/``, and the project accepts its output `dotenv` as settings.

`make infra-scan` also scans it with checkov.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from telemetry_assets.settings import Settings, load_settings, require_engine_settings
from telemetry_assets_tests.harness.terraform import INFRA, Configuration, terraform

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(terraform() is None, reason="neither Terraform nor OpenTofu is on this machine"),
    pytest.mark.timeout(600),
]
EXAMPLES = sorted(path.stem for path in (INFRA / "examples").glob("*.tfvars"))
_MOCKED = """
mock_provider "aws" {
  source = "./tests/mocks"
}

run "example" {
}
"""


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    return Configuration(tmp_path_factory.mktemp("infra") / "copy")


def test_it_is_formatted() -> None:
    program = terraform()
    assert program is not None
    result = subprocess.run(
        [program, "fmt", "-check", "-recursive", str(INFRA)], stdout=subprocess.PIPE, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_it_is_valid(configuration: Configuration) -> None:
    assert "The configuration is valid." in configuration.run("validate")


def test_options_and_validation_of_variables(configuration: Configuration) -> None:
    assert "0 failed" in configuration.run("test")


def test_readme_snippets_are_formatted() -> None:
    program = terraform()
    assert program is not None
    pages = "\n".join(page.read_text() for page in sorted(INFRA.rglob("README.md")))
    snippets = re.findall(r"```hcl\n(.*?)```", pages, re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        result = subprocess.run([program, "fmt", "-"], input=snippet, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout) == (0, snippet), result.stderr


@pytest.mark.parametrize("example", EXAMPLES)
def test_dotenv_output_of_an_example_is_valid_for_the_project(
    configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    (configuration.folder / "tests" / f"{example}.tftest.hcl").write_text(_MOCKED)
    output = configuration.run(
        "test", "-verbose", f"-filter=tests/{example}.tftest.hcl", f"-var-file=examples/{example}.tfvars"
    )
    found = re.search(r"^dotenv *= <<-EOT\n(.*?)^EOT", output, re.DOTALL | re.MULTILINE)
    assert found is not None, output
    dotenv = textwrap.dedent(found[1])
    names = {line.split("=", 1)[0] for line in dotenv.splitlines()}
    assert names <= {f"TELEMETRY_{name.upper()}" for name in Settings.model_fields}

    (tmp_path / ".env").write_text(dotenv)
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("telemetry_assets.settings.project_root", lambda: tmp_path)
    settings = load_settings()
    require_engine_settings(settings)
    assert settings.catalog == "glue"
    assert settings.is_in_s3
    if example == "full":
        assert settings.remote_size("silver.car_telemetry", rebuild=False).executors == 8
