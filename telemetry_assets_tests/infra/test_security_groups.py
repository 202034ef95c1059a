"""EC2 accepts the descriptions of security groups and their rules. Needs Python only, not Terraform."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import hcl2
import pytest

from telemetry_assets_tests.harness.terraform import INFRA

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpRange.html
_ALLOWED = re.compile(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}")


def descriptions() -> Iterator[str]:
    read: dict[str, Any] = hcl2.loads((INFRA / "modules" / "dagster" / "network.tf").read_text())
    for resource in read["resource"]:
        for blocks in resource.values():
            for block in blocks.values():
                yield block["description"].strip('"')


@pytest.mark.parametrize("description", sorted(descriptions()))
def test_a_description_has_allowed_characters_only(description: str) -> None:
    assert _ALLOWED.fullmatch(description)
