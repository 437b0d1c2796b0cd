"""COCO's metric on files in COCO's format."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from itertools import chain, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _arrays
from oxidet.detection import _coco

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
Records = list[dict[str, Any]]


def eval_coco(
    annotations: str | os.PathLike[str] | dict[str, Any],
    results: str | os.PathLike[str] | Sequence[dict[str, Any]] | NDArray[Any],
) -> _coco.CocoEvaluation:
    """COCO's box metric of a file of detections against a file of annotations.

    Parameters
    ----------
    annotations
        Path of a JSON file such as ``instances_val2017.json``, or what it holds: a dictionary with
        ``images`` (each with ``id``), ``categories`` (``id``, and ``name`` for the table) and
        ``annotations`` (``image_id``, ``category_id``, ``bbox`` as ``[x, y, width, height]``, and
        optionally ``area``, by default the box's, and ``iscrowd``, by default 0).
    results
        Path of a JSON file of detections, or what it holds: a list of dictionaries with
        ``image_id``, ``category_id``, ``bbox`` and ``score``. Or an array (N, 7) with the columns
        image id, x, y, width, height, score, category id.

    Returns
    -------
    :class:`CocoEvaluation`: ``print`` shows COCO's table, ``stats`` holds its twelve numbers,
    ``ap()`` and ``ar()`` give one for each category.

    Raises
    ------
    ValueError
        A field is missing, a box is not four numbers, or a detection is on an unknown image.
    OSError
        A file cannot be read.

    Warns
    -----
    UserWarning
        Detections of categories that the annotations do not have; they do not count.

    Notes
    -----
    As pycocotools' ``COCO(annotations)``, ``loadRes(results)`` and ``COCOeval(..., "bbox")``, whose
    numbers it gives within the rounding of a mean, with these differences: the ids of annotations
    mean nothing here, whereas there an object with id 0 can never be found and of several with one
    id only the last exists; no detections at all are no error; ``iscrowd`` and ``area`` may be
    missing. Annotations of unknown images or categories are left out, as there. Equal scores keep
    their order: by image id, then as in ``results``.

    Examples
    --------
    >>> from oxidet.detection import eval_coco
    >>> annotations = {
    ...     "images": [{"id": 7}],
    ...     "categories": [{"id": 18, "name": "dog"}],
    ...     "annotations": [{"image_id": 7, "category_id": 18, "bbox": [10, 20, 40, 40]}],
    ... }
    >>> result = eval_coco(
    ...     annotations,
    ...     [{"image_id": 7, "category_id": 18, "bbox": [10, 20, 40, 38], "score": 0.9}],
    ... )
    >>> result.category_names, result.ap().round(3)
    (['dog'], array([1.]))
    >>> result.stats.round(3).tolist()
    [1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0]
    """
    truth = _load(annotations, "annotations")
    if not isinstance(truth, dict) or not {"images", "categories", "annotations"} <= truth.keys():
        raise ValueError(
            "annotations: expected COCO data with 'images', 'categories' and 'annotations', "
            f"got {sorted(truth) if isinstance(truth, dict) else type(truth).__name__}"
        )
    images = _index(truth["images"], "images")
    categories = _index(truth["categories"], "categories")
    named = {c["id"]: str(c.get("name", c["id"])) for c in truth["categories"]}
    objects, crowded = _objects(truth["annotations"], images, categories)
    detections, scores = _detections(_load(results, "results"), images, categories)
    return _coco.evaluate(
        detections,
        scores,
        objects,
        crowded,
        category_ids=list(categories),
        category_names=[named[c] for c in categories],
    )


def _load(source: Any, argument: str) -> Any:
    """The content of a JSON file, or what was given in its place."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    try:
        return json.loads(Path(source).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        got = f"{os.fspath(source)!r} ({error})"
        raise ValueError(f"{argument}: expected a JSON file, got {got}") from None


def _index(records: Records, argument: str) -> dict[Any, int]:
    """The place of every id among the sorted ids, in that order."""
    ids = set(_keys(records, "id", argument))
    try:
        return {key: place for place, key in enumerate(sorted(ids))}
    except TypeError:
        raise ValueError(f"{argument}: expected ids of one type, got several") from None


def _keys(records: Sequence[dict[str, Any]], key: str, argument: str) -> list[Any]:
    """One field of all records, each a number or a word."""
    keys = _column(records, key, argument)
    if not {int, str} >= set(map(type, keys)):
        for row, value in enumerate(keys):
            if not isinstance(value, (int, float, str, np.number)):
                raise ValueError(
                    f"{argument}[{row}]: expected a number or text as {key!r}, "
                    f"got {_arrays.shown(value)}"
                )
    return keys


def _is_crowd(record: dict[str, Any], row: int) -> bool:
    crowd = record.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise ValueError(
            f"annotations[{row}]: expected 0 or 1 as 'iscrowd', got {_arrays.shown(crowd)}"
        )
    return bool(crowd)


def _objects(
    records: Records, images: dict[Any, int], categories: dict[Any, int]
) -> tuple[_coco.Boxes, NDArray[np.bool_]]:
    """The annotated objects and which of them are crowds."""
    image = _places(_keys(records, "image_id", "annotations"), images)
    label = _places(_keys(records, "category_id", "annotations"), categories)
    boxes = _boxes(records, "annotations")
    own_areas = boxes[:, 2] * boxes[:, 3]
    given = [r.get("area", own) for r, own in zip(records, own_areas.tolist(), strict=True)]
    areas = _numbers(given, "area", "annotations")
    crowded = np.array([_is_crowd(r, row) for row, r in enumerate(records)], np.bool_)
    known = (image >= 0) & (label >= 0)
    return _coco.Boxes(boxes[known], label[known], image[known], areas[known]), crowded[known]


def _detections(
    results: Any, images: dict[Any, int], categories: dict[Any, int]
) -> tuple[_coco.Boxes, F64]:
    """The detections and their scores."""
    if isinstance(results, np.ndarray):
        rows = _arrays.as_array(results, "results").astype(np.float64)
        if rows.ndim != 2 or rows.shape[1] != 7:
            raise ValueError(f"results: expected shape (N, 7), got {rows.shape}")
        image_ids, category_ids = rows[:, 0].tolist(), rows[:, 6].tolist()
        boxes, scores = np.ascontiguousarray(rows[:, 1:5]), np.ascontiguousarray(rows[:, 5])
    elif isinstance(results, (list, tuple)):
        image_ids = _keys(results, "image_id", "results")
        category_ids = _keys(results, "category_id", "results")
        boxes = _boxes(results, "results")
        scores = _numbers(_column(results, "score", "results"), "score", "results")
    else:
        raise TypeError(
            f"results: expected a path, a list of detections or an array (N, 7), "
            f"got {type(results).__name__}"
        )
    image = _places(image_ids, images)
    if (image < 0).any():
        row = int(np.argmax(image < 0))
        raise ValueError(
            f"results: expected images of the annotations, got image_id {image_ids[row]!r} "
            f"in row {row}"
        )
    label = _places(category_ids, categories)
    known = label >= 0
    if not known.all():
        row = int(np.argmin(known))
        warnings.warn(
            f"results: {np.count_nonzero(~known)} of {len(known)} detections do not count, since "
            f"the annotations lack their category (category_id {category_ids[row]!r} in row {row})",
            stacklevel=3,
        )
    boxes, scores = boxes[known], scores[known]
    areas = boxes[:, 2] * boxes[:, 3]
    return _coco.Boxes(boxes, label[known], image[known], areas), scores


def _column(records: Sequence[dict[str, Any]], key: str, argument: str) -> list[Any]:
    """One field of all records."""
    if not isinstance(records, (list, tuple)):
        got = type(records).__name__
        raise TypeError(f"{argument}: expected a list of dictionaries, got {got}")
    try:
        return list(map(itemgetter(key), records))
    except (KeyError, TypeError, IndexError):
        for row, record in enumerate(records):
            if not isinstance(record, dict) or key not in record:
                raise ValueError(
                    f"{argument}[{row}]: expected a dictionary with {key!r}, "
                    f"got {_arrays.shown(record)}"
                ) from None
        raise


def _boxes(records: Sequence[dict[str, Any]], argument: str) -> F64:
    """The field ``bbox`` of all records, (N, 4)."""
    boxes = _column(records, "bbox", argument)
    try:
        if set(map(len, boxes)) <= {4}:
            flat = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes))
            if not np.isnan(flat).any() or None not in chain.from_iterable(boxes):
                return flat.reshape(-1, 4)
    except (TypeError, ValueError):
        pass  # not numbers: the same message
    for row, box in enumerate(boxes):
        if not _is_list_of_numbers(box, 4):
            got = _arrays.shown(box)
            raise ValueError(f"{argument}[{row}]: expected bbox [x, y, width, height], got {got}")
    return np.array(boxes, np.float64).reshape(-1, 4)


def _is_list_of_numbers(value: Any, length: int) -> bool:
    if isinstance(value, np.ndarray):
        return value.shape == (length,) and value.dtype.kind in "biuf"
    return (
        isinstance(value, (list, tuple))
        and len(value) == length
        and all(isinstance(v, (int, float, np.number)) for v in value)
    )


def _numbers(values: list[Any], key: str, argument: str) -> F64:
    """A field that is one number in every record, (N,)."""
    try:
        numbers = np.fromiter(values, np.float64, len(values))
        if not np.isnan(numbers).any() or None not in values:  # NumPy takes None for NaN
            return numbers
    except (TypeError, ValueError):
        pass
    for row, value in enumerate(values):
        if not isinstance(value, (int, float, np.number)):
            got = _arrays.shown(value)
            raise ValueError(f"{argument}[{row}]: expected a number as {key!r}, got {got}")
    return np.array(values, np.float64)


def _places(ids: list[Any], index: dict[Any, int]) -> I32:
    """The place of every id, -1 for unknown ones."""
    return np.fromiter(map(index.get, ids, repeat(-1)), np.int32, len(ids))
