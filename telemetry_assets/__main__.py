"""``python -m telemetry_assets``: the command line."""

from telemetry_assets.cli.main import main

if __name__ == "__main__":
    main()
