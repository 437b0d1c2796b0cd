"""The classes of COCO, as detectors that were trained on it number them."""

from __future__ import annotations

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake,
chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
# Of the numbers 1 to 90 these belong to no class.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


def coco_classes() -> tuple[str, ...]:
    """Names for the 90 foreground labels of torchvision's COCO detectors, the first for label 1.

    Ten of the numbers belong to no class and are called "N/A", as there.

    >>> from oxidet.models.detection.coco import coco_classes
    >>> names = coco_classes()
    >>> len(names), names[0], names[11], names[89]
    (90, 'person', 'N/A', 'toothbrush')
    """
    names = iter(" ".join(_NAMES.split()).split(", "))
    return tuple("N/A" if number in _UNUSED else next(names) for number in range(1, 91))
