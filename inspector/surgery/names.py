"""Names that are still free in a graph."""

__all__ = ["free_name"]


def free_name(stem: str, taken: set[str]) -> str:
    """The stem, or the first of ``stem_1``, ``stem_2`` ... that is not taken; it is from then on.

    Args:
        stem: The name that is wanted.
        taken: All names of the graph; the result is added.

    Example:
        >>> from inspector.surgery.names import free_name
        >>> free_name("x", {"x", "x_1"})
        'x_2'
    """
    found, count = stem, 0
    while found in taken:
        count += 1
        found = f"{stem}_{count}"
    taken.add(found)
    return found
