"""Documents and names with text that tries to control a browser, a terminal or a report."""

from __future__ import annotations

import json

from telemetry_assets_tests.harness.made_documents import Document, event


def markdown(address: str) -> bytes:
    """An upload whose values are Markdown and HTML that refer to an address (``host:port``)."""
    values = [
        (f"![](//{address}/chassis.png)", f"[ok](//{address}/click)", f"<img src=//{address}/html.png>"),
        ("C2\\| x | y", "<svg onload=alert(1)>", "[a](javascript:alert(1))"),
        ("C3\r\r# Your session ended", f"`x\r\r![](//{address}/cr.png)", f"http://{address}/auto"),
        (f"C4 http://{address}/car", "www.example.com", f'"><a href="http://{address}/anchor">x</a>'),
    ]
    documents: list[Document] = [
        event(
            car,
            event_id=event_id,
            manufacturer=manufacturer,
            model=f"![](//{address}/model.png)",
            engineTempCelsius=150,
        )
        for car, event_id, manufacturer in values
    ]
    documents.append({**event("C5", oilPressurePsi="hot"), f"![](//{address}/field.png) http://{address}/field": 1})
    documents.append(event(f"![](//{address}/late.png)", f"http://{address}/time"))
    return "\n".join(map(json.dumps, documents)).encode()


TERMINAL = json.dumps(
    {
        "carChassis": "A\x1b]0;pwned\x07\x1b[31mRED\x1b[2J",
        "manufacturer": "m\x1b[8mhidden",
        "model": "a\rb\u202eevil\n  All is well.",
        "telemetryTimestamp": "2025-11-04T14:30:00Z",
        "metrics": {"currentMileageKm": 1, "engineTempCelsius": 150},
        "x\x1b]0;field\x07\x1b[2J\n  All is well.": 1,
    }
).encode()
"""An upload whose values and fields are escape sequences, bidirectional controls and lines of a report."""

FORGED_LINE = "  All is well."
FORGING_NAME = f"a\x1b[2J\n{FORGED_LINE}\n\u202e.txt"
"""A file's name that tries to add a line to a report."""
