"""What a cell of somebody's table holds, for guesses: a number, a number to mend, the word for none, or a label.

Guesses alone ask here. What is read as a number is decided elsewhere (`mapped`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

NUMBER: Final = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_NUMBER_WITH_COMMA: Final = re.compile(r"\s*[+-]?(?:\d+(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
CLOCK_TIME: Final = re.compile(
    r"\s*(?:\d\d?:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s*[AaPp][Mm])?|\d\d?\s*[AaPp][Mm])\s*", re.ASCII
)

# 1.052 and 1,052: thousands to some readers, three decimals to others.
ONE_GROUP: Final = re.compile(r"\s*[+-]?[1-9]\d{0,2}[.,]\d{3}\s*", re.ASCII)

NO_VALUE: Final = re.compile(
    r"\s*(?:#?n/?a|nan|null|none|nil|-+|\?|missing|undefined|unknown|unavailable)\s*", re.ASCII | re.IGNORECASE
)

# A number with a unit or with separators, which a person would mend. Only known units count: 4xx and web-1 are labels.
_UNIT: Final = (
    r"(?:[%‰°$€£¥₹]|°[CF]|[nµμum]?s|sec|min|h|[kKMGT]?i?B|[kKMG]?bps|[kMG]?Hz|[mkM]?(?:W|Wh|V|A)|[mck]?m|[mk]?g|m?[lL]|"
    r"m?bar|h?Pa|kPa|ppm|ppb|lx|dBm?|rpm|m/s|km/h|/s|EUR|USD|GBP|CHF)"
)
_QUANTITY: Final = re.compile(rf"\s*(?:{_UNIT}\s*)?([+-]?[\d.,]*\d[\d.,]*(?:[eE][+-]?\d+)?)(?:\s*{_UNIT})?\s*")
_SEPARATED: Final = re.compile(r"[+-]?\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*(?:[.,]\d+)?", re.ASCII)
_COMMA_IS_DECIMAL: Final = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+", re.ASCII)

_LABEL_MAX: Final = 100


def is_number(text: str, decimal: str) -> bool:
    """Whether it is a number with that decimal sign, a point or a comma."""
    return bool((NUMBER if decimal == "." else _NUMBER_WITH_COMMA).fullmatch(text))


def is_quantity(text: str) -> bool:
    """Whether it is a number with a unit, with another decimal sign, or with separators."""
    if (found := _QUANTITY.fullmatch(text)) is None:
        return False
    return any(pattern.fullmatch(found[1]) for pattern in (NUMBER, _NUMBER_WITH_COMMA, _SEPARATED))


def has_decimal_comma(texts: Iterable[str]) -> bool:
    """Whether one of these quantities has a comma that can only be its decimal sign."""
    numbers = [found[1] for text in texts if (found := _QUANTITY.fullmatch(text))]
    return any(_COMMA_IS_DECIMAL.fullmatch(number) and not ONE_GROUP.fullmatch(number) for number in numbers)


def are_labels(texts: list[str]) -> bool:
    """Whether texts repeat, as those of a tag do, and are neither words for no value nor times of day."""
    if any(all(map(pattern.fullmatch, texts)) for pattern in (NO_VALUE, CLOCK_TIME)):
        return False
    distinct = set(texts)
    return max(map(len, distinct)) <= _LABEL_MAX and len(distinct) <= max(4, len(texts) // 2)
