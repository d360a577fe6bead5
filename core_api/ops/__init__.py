"""The back office through the core API: reads and writes."""
