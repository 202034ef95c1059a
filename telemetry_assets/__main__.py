"""Runs the command line with ``python -m telemetry_assets``."""

from telemetry_assets.cli.main import main

if __name__ == "__main__":
    main()
