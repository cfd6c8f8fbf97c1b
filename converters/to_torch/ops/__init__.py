"""The operators of the standard, one family a module.

Importing this package fills ``converters.to_torch.optable.OPS``.  A new module in this folder is
a new family: it is found by itself.
"""

import importlib
import pkgutil

FAMILIES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
"""Names of the modules of this folder."""

for _family in FAMILIES:
    importlib.import_module(f"{__name__}.{_family}")
