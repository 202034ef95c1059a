"""The examples of docs/querying.md run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "querying.md"


def test_examples_for_analysts_run(deployed: Deployment, tmp_path: Path) -> None:
    deployed.upload("x.json", framed([event(engineTempCelsius=120)], "array")[1])
    deployed.process()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lakehouse").symlink_to(deployed.settings.lakehouse_folder())
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        result = subprocess.run(
            [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        assert "CAR-1" in result.stdout or "OVERHEAT_ENGINE" in result.stdout
