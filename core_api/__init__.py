"""The core API: ingestion, operations, console."""
