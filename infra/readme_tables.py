"""Writes the tables of inputs and outputs into the README of each Terraform module: ``python -m infra.readme_tables``.

A README contains two comments, ``<!-- BEGIN INPUTS AND OUTPUTS -->`` and ``<!-- END INPUTS AND OUTPUTS -->``; the text
between them is generated from the module's ``.tf`` files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2

_INFRA = Path(__file__).resolve().parent
MODULES = (_INFRA, _INFRA / "modules" / "bucket", _INFRA / "modules" / "dagster")
"""The folders of the modules, the root module first."""

_BEGIN, _END = "<!-- BEGIN INPUTS AND OUTPUTS -->\n", "<!-- END INPUTS AND OUTPUTS -->\n"

Block = dict[str, Any]
"""The attributes of an HCL block, as python-hcl2 reads them: strings keep their quotes."""


def readme_with_tables(module: Path) -> str:
    """The README of a module, with its tables generated from the ``.tf`` files.

    :raises ValueError: if the README lacks one of the two comments.
    """
    text = (module / "README.md").read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{module / 'README.md'} lacks the comments around the tables of inputs and outputs")
    return f"{before}{_BEGIN}\n{_tables(module)}\n{_END}{after}"


def _tables(module: Path) -> str:
    return "\n".join(
        [
            "### Inputs\n",
            "| name | type | default | description |",
            "|---|---|---|---|",
            *(_input_row(name, variable) for name, variable in _blocks(module, "variable")),
            "\n### Outputs\n",
            "| name | description |",
            "|---|---|",
            *(_row(f"`{name}`", _text(output["description"])) for name, output in _blocks(module, "output")),
            "",
        ]
    )


def _input_row(name: str, variable: Block) -> str:
    default = f"`{_literal(variable['default'])}`" if "default" in variable else "required"
    return _row(f"`{name}`", f"`{_expression(variable['type'])}`", default, _text(variable["description"]))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _blocks(module: Path, kind: str) -> Iterator[tuple[str, Block]]:
    """The variables or outputs of a module by name, in the order of its files."""
    for path in sorted(module.glob("*.tf")):
        for block in hcl2.loads(path.read_text()).get(kind, []):
            for name, attributes in block.items():
                yield _text(name), attributes


def _expression(value: str) -> str:
    """An expression, such as a type, without the ``${…}`` that python-hcl2 puts around it."""
    return value.removeprefix("${").removesuffix("}") if value.startswith("${") else value


def _text(value: str) -> str:
    """The content of a string in double quotes."""
    return str(json.loads(value))


def _literal(value: Any) -> str:
    """A default value, in HCL."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{name} = {_literal(one)}" for name, one in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    for folder in MODULES:
        (folder / "README.md").write_text(readme_with_tables(folder))
