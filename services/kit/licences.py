"""What a licence permits, by the Hub's names of licences: for models and datasets that a new model is made of.

    allows(licence, wanted)     True, False, or None where the licence is not known
    check_wanted(wanted)        refuses a word that is none of them

    wanted   "permissive"       use, change and sell, without having to share alike (Apache, MIT, BSD, CC BY, ...)
             "commercial"       may be used in what is sold, whatever else it asks: copyleft and use restrictions too
             an id              this licence and no other, such as "apache-2.0"

A licence without derivatives ("-nd") permits neither: training on it derives. This sorts names; it is no legal advice.
"""

from __future__ import annotations

import re

from services.kit.errors import InvalidArgument


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The Hub's names: huggingface.co/docs/hub/repositories-licenses.
_PERMISSIVE = _names(
    """afl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc-by-2.0
    cc-by-2.5 cc-by-3.0 cc-by-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 ecl-2.0 etalab-2.0 isc mit ms-pl ncsa
    odc-by ofl-1.1 openmdw-1.0 pddl postgresql unlicense wtfpl zlib"""
)
# Sold products may be built on them, under terms: the same licence for what derives, or limits on the use.
_WITH_TERMS = _names(
    """agpl-3.0 apple-ascl bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m cc-by-sa-3.0 cc-by-sa-4.0
    cdla-sharing-1.0 creativeml-openrail-m epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 lgpl
    lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mpl-2.0 odbl openrail openrail++
    osl-3.0"""
)
_NOT_FOR_SALE = _names(
    """apple-amlr cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 deepfloyd-if-license fair-noncommercial-research-license h-research
    intel-research"""
)
_KNOWN = _PERMISSIVE | _WITH_TERMS | _NOT_FOR_SALE
# Names that say that there is a licence, and not which.
_SILENT = frozenset(("", "unknown", "other", "cc", "none"))
# Licences that the Hub's list lacks: cc-by-nc-sa-2.5; and other versions of those it has: gpl-3.0-only.
_NON_COMMERCIAL = re.compile(r"(^|-)(nc|nd|noncommercial)(-|$)")
_VERSION = re.compile(r"[-+ ]*(v?\d+(\.\d+)*)?(-only|-or-later|\+)?$")
_PERMISSIVE_FAMILIES, _FAMILIES_WITH_TERMS = (
    {_VERSION.sub("", name) for name in known} for known in (_PERMISSIVE, _WITH_TERMS)
)

_CLASSES = ("permissive", "commercial")


def allows(licence: str, wanted: str) -> bool | None:
    """Whether what is under `licence` may be used where `wanted` is asked for; None where that is not known.

    Of several licences, separated by commas, each must allow it. InvalidArgument for a `wanted` that is no such word.
    """
    check_wanted(wanted)
    verdicts = [_allows(one.strip().lower(), wanted.strip().lower()) for one in licence.split(",")]
    if False in verdicts:
        return False
    return None if None in verdicts else True


def check_wanted(wanted: str, field: str = "licence") -> None:
    """Returns where `wanted` is "permissive", "commercial" or a licence's id; InvalidArgument names `field`."""
    word = wanted.strip().lower()
    if word in _CLASSES or word in _KNOWN:
        return
    raise InvalidArgument(
        "BAD_LICENCE",
        f"licence is {wanted[:80]!r}; wanted permissive, commercial, or a licence's id on the Hub, such as apache-2.0.",
        field=field,
    )


def _allows(licence: str, wanted: str) -> bool | None:
    if licence in _SILENT:
        return None
    if wanted not in _CLASSES:
        # An id that the list lacks is another licence all the same; a sentence may name any.
        return licence == wanted if licence in _KNOWN or not licence.count(" ") else None
    if licence in _NOT_FOR_SALE or _NON_COMMERCIAL.search(licence):
        return False
    family = _VERSION.sub("", licence)
    if licence in _PERMISSIVE or family in _PERMISSIVE_FAMILIES:
        return True
    if licence in _WITH_TERMS or family in _FAMILIES_WITH_TERMS:
        return wanted == "commercial"
    return None
