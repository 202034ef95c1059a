"""What tests order to go wrong with remote runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

from moto.core.exceptions import JsonRESTError


@dataclass
class Orders:
    """What is to go wrong with the next runs, and how often.

    ``refuse/<code>``: a start is refused. ``lose-answer``: a run is started, and its answer is lost.
    ``stay/<state>``: it comes to a state and stays there, until it is released. ``end/<state>``: it ends so, and its
    program never starts. ``kill``: its driver is killed. ``drop-messages``: what it tells is not kept.
    """

    left: dict[str, int] = field(default_factory=dict)
    released: Event = field(default_factory=Event)

    def forget(self) -> None:
        """As if nothing had been ordered."""
        self.left.clear()
        self.released.clear()

    def take(self, kind: str) -> str | None:
        """What follows the kind in an order that is left, which is then one less; None where there is none."""
        for order, count in self.left.items():
            if count and order.split("/")[0] == kind:
                self.left[order] = count - 1
                return order.removeprefix(f"{kind}/")
        return None


ORDERS = Orders()


def ordered(kind: str) -> tuple[str, str] | None:
    """The next order of a kind, and what it says."""
    given = ORDERS.take(kind)
    return None if given is None else (kind, given)


def refuse_if_ordered() -> None:
    """Refuse a start, where that is ordered."""
    code = ORDERS.take("refuse")
    if code is not None:
        raise JsonRESTError(code, "It was ordered so.")


def lose_answer_if_ordered() -> None:
    """Fail after a start has taken effect, where that is ordered."""
    if ORDERS.take("lose-answer") is not None:
        error = JsonRESTError("InternalServiceException", "It was ordered so.")
        error.code = 500
        raise error
