"""How long the command line takes and how much memory it holds: ``python -m benchmarks.command_line``."""

from __future__ import annotations

from benchmarks.measuring import Measured, measure, place, tell

PROCESS = ("-m", "telemetry_assets", "process")


def one_after_another(runs: int) -> list[Measured]:
    """`process` of one small upload on a lakehouse that has 100,000 documents already."""
    with place() as at:
        at.fill(documents=100_000, uploads=100, cars=500, days=30)
        measure(PROCESS, at)
        measured = []
        for seed in range(runs):
            at.fill(documents=5, uploads=1, cars=5, days=1, seed=seed + 2)
            measured.append(measure(PROCESS, at))
    return measured


def fresh(documents: int, uploads: int, cars: int, days: int) -> Measured:
    """`process` of a fleet's uploads into a new lakehouse."""
    with place() as at:
        at.fill(documents=documents, uploads=uploads, cars=cars, days=days)
        return measure(PROCESS, at)


def main() -> None:
    """Measure and print a Markdown table."""
    print("| whole process | fastest s | median s | slowest s | most memory MB |\n|---|---|---|---|---|")
    with place() as at:
        tell(
            "load the Dagster definitions",
            [measure(("-c", "import telemetry_assets.definitions"), at) for _ in range(5)],
        )
    tell("100 uploads, 1,000 documents, into a new lakehouse", [fresh(1_000, 100, 50, 7) for _ in range(5)])
    tell("1 upload of 5 documents, into 100,000 documents", one_after_another(5))
    tell("1,000 uploads, 100,000 documents, into a new lakehouse", [fresh(100_000, 1_000, 500, 30) for _ in range(3)])


if __name__ == "__main__":
    main()
