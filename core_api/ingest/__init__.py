"""Ingestion: signed webhook, queue, ordered apply, dead letters, replay (ingest_contract.md)."""
