"""The functions that belong to arrays: NumPy's, or those of the library that they come from."""

from typing import Any

import numpy as np

__all__ = ["array_namespace"]


def array_namespace(*arrays: Any) -> Any:
    """The module of the Array API standard that works on these arrays.

    NumPy keeps to the standard itself.  ``array_api_compat`` is asked for other arrays alone: its
    copy of NumPy imports every submodule, which takes a tenth of a map from the shell.

    Args:
        arrays: All of one library.

    Raises:
        TypeError: Arrays of several libraries.

    Example:
        >>> import numpy as np
        >>> from inspector.measures.namespace import array_namespace
        >>> array_namespace(np.zeros(2)) is np
        True
    """
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np
    from array_api_compat import array_namespace as namespace_of

    return namespace_of(*arrays)
