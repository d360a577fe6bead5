"""Reports of a verdict: one document, written as JSON (the record), Markdown and one HTML page (to look at).

    write(conn, verdict, root) -> Written          root/recon/{batch}/{timestamp}.json, .md, .html

The JSON follows `report.schema.json`. `Written.digest` is the SHA-256 of the JSON file; the other two show it.
"""

from bridge.reports.document import document
from bridge.reports.mask import mask
from bridge.reports.write import Written, found, markdown, write

__all__ = ["Written", "document", "found", "markdown", "mask", "write"]
