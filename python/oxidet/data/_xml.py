"""Reading XML that may come from anywhere: no DTD, no entities, nothing fetched.

A DTD is what the known attacks on XML parsers are made of (entities that multiply, entities that
name files or addresses), and annotations have no use for one, so a document with a DTD is refused.
"""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ET
from typing import Any
from xml.parsers import expat

REFUSED = "a DTD or an entity is not allowed here"


def parse_xml(data: bytes) -> ET.Element:
    """The root element of an XML document.

    Uses defusedxml where it is installed and the standard library's expat otherwise, with the
    same result. ValueError for anything that is not well-formed XML free of a DTD.
    """
    try:
        defused: Any = importlib.import_module("defusedxml.ElementTree")
    except ImportError:
        return parse_without_dtd(data)
    try:
        root: ET.Element = defused.fromstring(data, forbid_dtd=True)
    except importlib.import_module("defusedxml").DefusedXmlException:
        raise ValueError(REFUSED) from None
    except (ET.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"not well-formed XML: {error}") from None
    return root


def parse_without_dtd(data: bytes) -> ET.Element:
    """``parse_xml`` by the standard library alone."""

    class Refused(Exception):
        """Told from what expat raises itself."""

    def refuse(*_: Any) -> Any:
        raise Refused

    builder = ET.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
    except Refused:
        raise ValueError(REFUSED) from None
    except (expat.ExpatError, LookupError, ValueError) as error:  # a ValueError of an encoding
        raise ValueError(f"not well-formed XML: {error}") from None
    return builder.close()
