"""Where the patches of a layer's units are cut out: their receptive field on the input."""

from typing import TYPE_CHECKING

from inspector.network.receptive_fields.receptive_field import ReceptiveField, receptive_field

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["patch_field"]


def patch_field(
    model: "Opened", tensor: str, units: str = "units"
) -> tuple[ReceptiveField, list[str]]:
    """Receptive field that the patches of a layer are cut out at.

    Args:
        model: The opened model.
        tensor: The layer.
        units: How the warning names its units.

    Returns:
        The field, local where gates alone spread it over the whole image, and a warning where
        units depend on the whole image.
    """
    shapes = model.shapes(model.preprocessing.preprocess.size)
    found = receptive_field(model.graph, tensor, model.input.name, shapes)
    if not found.global_:
        return found, []
    shown = "the patches show where they mostly look" if found.local else "patches are whole"
    return found.local or found, [f"{units} depend on the whole image ({found.why}); {shown}"]
