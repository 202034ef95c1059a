"""The package that job runs of remote Spark execute: its modules, how it is built, and how it is found in S3.

``python -m telemetry_assets.engines.package`` (``make package``) builds and uploads it.
"""
