"""Benchmark of the command line's time and memory. Run it with ``python -m benchmarks.command_line``."""

from __future__ import annotations

from benchmarks.measuring import Measured, measure, print_row, temporary_deployment

PROCESS = ("-m", "telemetry_assets", "process")


def process_small_uploads(runs: int) -> list[Measured]:
    """Measure `process` of one small upload each, into a lakehouse that contains 100,000 documents."""
    with temporary_deployment() as deployment:
        deployment.fill(documents=100_000, uploads=100, cars=500, days=30)
        measure(PROCESS, deployment)
        measured = []
        for seed in range(runs):
            deployment.fill(documents=5, uploads=1, cars=5, days=1, seed=seed + 2)
            measured.append(measure(PROCESS, deployment))
    return measured


def process_into_new_lakehouse(documents: int, uploads: int, cars: int, days: int) -> Measured:
    """Measure `process` of a fleet's uploads into a new lakehouse."""
    with temporary_deployment() as deployment:
        deployment.fill(documents=documents, uploads=uploads, cars=cars, days=days)
        return measure(PROCESS, deployment)


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    print("| whole process | fastest s | median s | slowest s | most memory MB |\n|---|---|---|---|---|")
    with temporary_deployment() as deployment:
        print_row(
            "load the Dagster definitions",
            [measure(("-c", "import telemetry_assets.definitions"), deployment) for _ in range(5)],
        )
    print_row(
        "100 uploads, 1,000 documents, into a new lakehouse",
        [process_into_new_lakehouse(1_000, 100, 50, 7) for _ in range(5)],
    )
    print_row("1 upload of 5 documents, into 100,000 documents", process_small_uploads(5))
    print_row(
        "1,000 uploads, 100,000 documents, into a new lakehouse",
        [process_into_new_lakehouse(100_000, 1_000, 500, 30) for _ in range(3)],
    )


if __name__ == "__main__":
    main()
