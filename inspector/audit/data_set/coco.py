"""COCO annotations: one JSON file with images, annotations and categories."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from converters.plain_values import finite_number, parse_json
from inspector.audit.data_set.described import (
    Annotated,
    Annotations,
    Described,
    below,
    few,
    mappings_in,
    read_file,
    refuse_all,
    size_of,
    unnamed,
    without_outline,
)
from inspector.audit.data_set.outlines import Outline, of_coco
from inspector.errors import UsageError
from inspector.printable import clean_text, distinct_text

__all__ = ["coco"]

Identity = int | float | str | None
"""What tells images and categories of COCO apart."""

_BOX = ("left", "top", "width", "height")


def coco(path: Path) -> Annotations:
    """Photos of COCO annotations: ``images``, ``annotations`` and ``categories``.

    They lie below the file's folder, or, where that is called ``annotations``, beside it: in
    ``images/``, or in the folder that the file is named after (``instances_val2017.json``).

    Raises:
        UsageError: It is not COCO, or names files outside its folder.
    """
    try:
        found = parse_json(read_file(path))
    except ValueError as error:
        raise UsageError(f"is not JSON ({error})", where=str(path)) from None
    parts: Mapping[str, Any] = found if isinstance(found, dict) else {}
    images, boxes = parts.get("images"), parts.get("annotations", [])
    if not isinstance(images, list) or not isinstance(boxes, list):
        raise UsageError(
            "is not COCO: it has no list `images`",
            where=str(path),
            hint="COCO has the lists images, annotations and categories",
        )
    wrong: list[str] = []
    named = _by_id(mappings_in(parts.get("categories", [])), "categories", wrong)
    known = _by_id(mappings_in(images), "images", wrong)
    objects, categories, remarks = _objects(mappings_in(boxes), named, wrong)
    wrong += _unmatched("an image", {*objects}, known)
    wrong += _unmatched("a category", categories, named)
    refuse_all([*wrong, *_nameless(images)], path)
    if strangers := [one for identity in {*objects} - {*known} for one in objects[identity]]:
        remarks.append(f"{len(strangers)} object(s) of images that it does not name are left out")
    beside = ("", path.stem.rpartition("_")[2]) if path.parent.name == "annotations" else ()
    described = []
    for image in mappings_in(images):
        name = below(_name_of(image), path)
        inner = (name, PurePosixPath("images") / name, PurePosixPath(name.name))
        places = (
            *inner,
            *(PurePosixPath("..", folder) / one for folder in beside for one in inner),
            *(PurePosixPath("..", "images", folder) / name for folder in beside),
        )
        own = objects.get(_identity(image.get("id")), [])
        size = image.get("height"), image.get("width")
        described.append(Described(distinct_text(str(name)), places, own, size_of(*size)))
    names = [clean_text(str(one.get("name") or "")).strip() for one in named.values()]
    return Annotations(described, list(dict.fromkeys(filter(None, names))), remarks)


def _objects(
    boxes: Sequence[Mapping[str, Any]],
    named: Mapping[Identity, Mapping[str, Any]],
    wrong: list[str],
) -> tuple[dict[Identity, list[Annotated]], set[Identity], list[str]]:
    """Objects by their image, categories that they name, and what is said of how they were read.

    Args:
        boxes: The annotations.
        named: Categories by their identity.
        wrong: Gets what is wrong.
    """
    objects: dict[Identity, list[Annotated]] = {}
    categories = set[Identity]()
    unread: list[str] = []
    without = 0
    for number, box in enumerate(boxes):
        if box.get("iscrowd") == 1:  # a region of many objects, which no evaluation counts
            continue
        called = f"annotation {clean_text(str(box.get('id', number)), limit=40)}"
        try:
            outline = of_coco(box.get("segmentation"))
        except ValueError as error:
            outline = None
            (wrong if box.get("bbox") is None else unread).append(f"{called}: {error}")
        numbers = _box_of(box, outline)
        if numbers is None:
            without += 1
            continue
        if numbers == []:
            wrong.append(f"{called}: bbox is not left, top, width, height")
            continue
        identity, category = _identity(box.get("image_id")), _identity(box.get("category_id"))
        categories |= {category} - {None}
        said = clean_text(str(named.get(category, {}).get("name") or "")).strip()
        label = said or (None if category is None else unnamed(category))
        if numbers[2] > 0 and numbers[3] > 0:  # COCO itself has boxes without an area
            left, top = numbers[:2]
            corners = (top, left, top + numbers[3], left + numbers[2])
            one = Annotated(label, corners, outline=outline)
            objects.setdefault(identity, []).append(one)
    remarks = without_outline(one for own in objects.values() for one in own)
    if without:
        remarks.append(
            f"{without} annotation(s) without a box or an outline are no objects: key points, "
            "captions, or regions of panoptic segmentation"
        )
    if unread:
        remarks.append(f"a segmentation that cannot be read, whose box counts: {few(unread)}")
    return objects, categories, remarks


def _unmatched(what: str, used: set[Identity], given: Mapping[Identity, object]) -> list[str]:
    """What is wrong where annotations name identities of which none is there."""
    if not used or not given or used & set(given):
        return []
    key = what.rpartition(" ")[2]
    return [f"no annotation has the id of {what}: {key}_id and id differ in type?"]


def _nameless(images: object) -> list[str]:
    """What is wrong with images of which no file is named."""
    return [
        f"image {clean_text(str(image.get('id', number)), limit=40)} has no file_name"
        for number, image in enumerate(mappings_in(images))
        if not _name_of(image)
    ]


def _name_of(image: Mapping[str, Any]) -> object:
    """An image's file: LVIS gives its address alone."""
    return image.get("file_name") or str(image.get("coco_url") or "").rpartition("/")[2]


def _identity(value: object) -> Identity:
    """What tells images and categories apart; None of what can be no identity."""
    return value if isinstance(value, int | float | str) else None


def _by_id(
    found: Sequence[Mapping[str, Any]], what: str, wrong: list[str]
) -> dict[Identity, Mapping[str, Any]]:
    """Images or categories by their identity; two different ones of the same are wrong."""
    known: dict[Identity, Mapping[str, Any]] = {}
    key = "file_name" if what == "images" else "name"
    for one in found:
        other = known.setdefault(_identity(one.get("id")), one)
        if other is not one and other.get(key) != one.get(key):
            wrong.append(f"two {what} have the id {clean_text(str(one.get('id')), limit=40)}")
    return known


def _box_of(annotation: Mapping[str, Any], outline: Outline | None) -> list[float] | None:
    """Left, top, width, height; empty where that is not a box, None where there is none.

    Without ``bbox``, or where it has no area, it is what the segmentation reaches.
    """
    numbers = annotation.get("bbox")
    reached = None if outline is None else outline.corners
    if numbers is not None:
        given = list(numbers) if isinstance(numbers, list) else []
        found = [finite_number(one) for one in given]
        box = [float(one or 0) for one in found]
        if len(found) != len(_BOX) or None in found or box[2] < 0 or box[3] < 0:
            return []
        if (box[2] > 0 and box[3] > 0) or reached is None:
            return box
    if reached is None:
        return None
    top, left, bottom, right = reached
    return [left, top, right - left, bottom - top]
