"""A second opinion on the mapping rules: plain, slow, obvious Python against which the SQL models are compared.

It was written from the specification alone. `bridge` computes what the canonical tables must hold, `load` reads
what they do hold, `difference` says in words where the two disagree. Readings of unclear passages: READINGS.md.
"""

from tests.oracle.compare import difference, load
from tests.oracle.run import bridge

__all__ = ["bridge", "difference", "load"]
