"""Names and colours of label values as viewers read them."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

#: How far hues of neighbouring values are apart: the golden angle, as a share of the circle.
_GOLDEN = 0.381966


def itksnap_text(labels: Mapping[str, int]) -> str:
    """A label description file of ITK-SNAP (Segmentation, Import Label Descriptions)."""
    lines = ["# ITK-SnAP Label Description File", "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL"]
    lines.append('    0     0    0    0        0  0  0    "Clear Label"')
    for name, value in _in_order(labels):
        red, green, blue = _colour(value)
        shown = name.replace('"', "'")
        lines.append(f'{value:5d} {red:5d}{green:5d}{blue:5d}        1  1  1    "{shown}"')
    return "\n".join(lines) + "\n"


def slicer_text(labels: Mapping[str, int]) -> str:
    """A colour table of 3D Slicer (``.ctbl``); names have no spaces there."""
    lines = [
        "# Color table of synthct: value, name, red, green, blue, opacity",
        "0 background 0 0 0 0",
    ]
    for name, value in _in_order(labels):
        red, green, blue = _colour(value)
        lines.append(f"{value} {'_'.join(name.split())} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"


def label_table_xml(labels: Mapping[str, int]) -> str:
    """The label table of Connectome Workbench, which TotalSegmentator puts into NIfTI headers."""
    rows = []
    for name, value in _in_order(labels):
        shares = zip(("Red", "Green", "Blue"), _colour(value), strict=True)
        colour = " ".join(f'{channel}="{part / 255:.4f}"' for channel, part in shares)
        text = name.replace("]]>", "]]]]><![CDATA[>")
        rows.append(f'<Label Key="{value}" {colour} Alpha="1"><![CDATA[{text}]]></Label>')
    return (
        '<?xml version="1.0" encoding="UTF-8"?><CaretExtension><VolumeInformation Index="0">'
        f"<LabelTable>{''.join(rows)}</LabelTable><VolumeType><![CDATA[Label]]></VolumeType>"
        "</VolumeInformation></CaretExtension>"
    )


def _in_order(labels: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(labels.items(), key=lambda pair: pair[1])


def _colour(value: int) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255: the same for the same value everywhere."""
    red, green, blue = colorsys.hsv_to_rgb((value - 1) * _GOLDEN % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
