"""Policies as a reviewer reads them: no wildcard that is not explained. Only Python is needed, not Terraform."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hcl2
import pytest

from telemetry_assets_tests.infra.terraform import INFRA

Block = dict[str, Any]
_DOCUMENT = '"aws_iam_policy_document"'


def statements_in(block: Block) -> Iterator[Block]:
    yield from block.get("statement", [])
    for dynamic in block.get("dynamic", []):
        yield from dynamic.get('"statement"', {}).get("content", [])


def statements() -> Iterator[Any]:
    """Those of identities: what a bucket or a key lets others do is another matter."""
    for path in sorted(INFRA.rglob("*.tf")):
        with path.open() as file:
            read = hcl2.load(file)
        for data in read.get("data", []):
            for name, document in data.get(_DOCUMENT, {}).items():
                for number, statement in enumerate(statements_in(document)):
                    if "principals" not in statement:
                        yield pytest.param(statement, id=f"{path.stem}-{name.strip(chr(34))}-{number}")


STATEMENTS = list(statements())


def test_the_policies_of_everybody_are_looked_at() -> None:
    names = {str(statement.id).split("-")[1] for statement in STATEMENTS}
    assert names >= {"uploader", "orchestrator", "job", "analyst", "execution"}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_names_its_actions(statement: Block) -> None:
    assert statement["actions"]
    assert not [action for action in statement["actions"] if "*" in action]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_names_its_resources_or_says_why_it_cannot(statement: Block) -> None:
    named = '"*"' not in statement["resources"] and statement["resources"] != ["*"]
    assert named or statement.get("__comments__"), statement
