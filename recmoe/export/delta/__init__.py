"""A delta: a bundle as it travels to where another one lies, as the table rows that differ and files that are new.

delta.json           the bundle that it builds on, and where each file of the new one comes from
bundle/              manifest.json of the new bundle, and its files that travel whole
rows/                a file of row numbers and values for each table file of which some rows differ

Applied to its base it gives the new bundle byte by byte, by the hashes of the new bundle's own manifest. What is
done with a bundle afterwards need not know how it came.
"""

from recmoe.export.delta.apply import apply_delta
from recmoe.export.delta.document import DELTA, Delta, DeltaBase
from recmoe.export.delta.plan import DeltaPlan

__all__ = ["DELTA", "Delta", "DeltaBase", "DeltaPlan", "apply_delta"]
