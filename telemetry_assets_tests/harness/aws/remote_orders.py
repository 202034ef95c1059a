"""The failures that tests plan for remote runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

from moto.core.exceptions import JsonRESTError


@dataclass
class Orders:
    """Planned failures of the next runs, with their counts.

    ``refuse/<code>``: a start is refused. ``lose-answer``: a run starts, and the response is lost.
    ``stay/<state>``: the run stays in a state until it is released. ``end/<state>``: the run ends in a state, and its
    program never starts. ``kill``: the driver is killed. ``drop-messages``: the run's messages are not stored.
    """

    left: dict[str, int] = field(default_factory=dict)
    released: Event = field(default_factory=Event)

    def forget(self) -> None:
        """Remove all planned failures."""
        self.left.clear()
        self.released.clear()

    def take(self, kind: str) -> str | None:
        """Take one planned failure of a kind and return the text after the kind; None if there is none."""
        for order, count in self.left.items():
            if count and order.split("/")[0] == kind:
                self.left[order] = count - 1
                return order.removeprefix(f"{kind}/")
        return None


ORDERS = Orders()


def ordered(kind: str) -> tuple[str, str] | None:
    """The next planned failure of a kind, with its text."""
    given = ORDERS.take(kind)
    return None if given is None else (kind, given)


def refuse_if_ordered() -> None:
    """Refuse a start if that is planned."""
    code = ORDERS.take("refuse")
    if code is not None:
        raise JsonRESTError(code, "It was ordered so.")


def lose_answer_if_ordered() -> None:
    """Fail after a start has taken effect if that is planned."""
    if ORDERS.take("lose-answer") is not None:
        error = JsonRESTError("InternalServiceException", "It was ordered so.")
        error.code = 500
        raise error
