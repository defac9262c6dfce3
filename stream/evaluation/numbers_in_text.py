"""Find out how the numbers of a column of texts are written: marks, a unit, codes for missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from headrace.stream.formats.quantities import GROUPS, LONGEST, number_reader

MOST_CODES = 10  # texts that count as missing in a column of numbers
NOTHING = frozenset(  # what everybody writes for no number, in any case
    ("n/a", "na", "#n/a", "#na", "<na>", "nan", "null", "none", "nil", "-", "--", ".", "\\n")
)
LEAST_SHARE = 0.9  # of a column's values that have to be numbers

_CURRENCIES = "USD EUR GBP JPY CNY CHF CAD AUD NZD SEK NOK DKK PLN CZK HUF INR BRL ZAR TRY RUB KRW"
_SIGNS = "$€£¥₹₽₩₺₴₫฿₪₦₱₡₲₵₸₿¢"
_BEFORE = rf"[A-Z]{{0,3}}[{_SIGNS}]|{'|'.join(_CURRENCIES.split())}"
_SPACES = "".join(GROUPS[" "])
_TEXT = re.compile(
    rf"\(?(?P<a>{_BEFORE})?\s*[+\-\u2212]?\s*(?P<b>{_BEFORE})?\s*"
    rf"(?P<digits>[.,]?[0-9](?:[0-9.,_'\u2019{_SPACES}]*[0-9])?[.,]?)(?:[eE][+-]?[0-9]+)?"
    rf"\s*(?P<c>[^\W\d_%‰°{_SIGNS}][^\s()]{{0,11}}|[%‰°{_SIGNS}][^\s()]{{0,11}})?\)?"
).fullmatch
_DIGIT = re.compile(r"[0-9]").search
_CODE = re.compile(r"0[0-9]+").fullmatch
_THREE = re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}").fullmatch


class Written(NamedTuple):
    """Say how the numbers of a column are written, or why they are none.

    Attributes:
        keys: of the task file.
        codes: texts that are no numbers, and no slips: the most frequent first.
        share: of the values that are numbers.
        sure: the same without the texts that everybody writes for none.
        why: what is not sure, or wrong; "" for nothing.
        other: a text that is no number; "" if there is none.
    """

    keys: dict[str, Any]
    codes: Sequence[str] = ()
    share: float = 0.0
    sure: float = 0.0
    why: str = ""
    other: str = ""

    @property
    def is_number(self) -> bool:
        """Return whether the column is one of numbers."""
        return self.sure >= LEAST_SHARE and len(self.codes) <= MOST_CODES


def written(values: Sequence[Any], decimal: str | None = None) -> Written:
    """Say how numbers are written among values, some of which may be numbers already.

    Args:
        decimal: the mark, if it is known from elsewhere; what the values show comes first.
    """
    texts = [value.strip() for value in values if isinstance(value, str)]
    found = [m for text in texts if len(text) <= LONGEST and (m := _TEXT(text))]
    plain = len(values) - len(texts)
    if not texts or (plain + len(found)) < LEAST_SHARE / 2 * len(values):
        return Written({})
    if any(_CODE(match["digits"]) and not match["c"] for match in found):
        return Written({})  # 007 and 01234 name things
    units = Counter(unit for m in found if (unit := m["a"] or m["b"] or m["c"]))
    if len(units) > 1 and units.most_common(1)[0][1] < LEAST_SHARE * len(found):
        told = " and ".join(f'"{unit}"' for unit, _ in units.most_common(3))
        letters = len(units) > 3 or any(len(unit) == 1 and unit.isalpha() for unit in units)
        return Written({}, why="" if letters else f"numbers in {told}: expected one unit")
    unit = max(units, key=units.__getitem__) if units else None
    point, thousands, why = _marks([match["digits"] for match in found], decimal)
    read = number_reader(point, thousands, unit)
    others = Counter(text for text in texts if read(text) is None)
    blank = sum(count for text, count in others.items() if text.casefold() in NOTHING)
    if blank > len(values) / 2:
        blank = 0  # too few numbers to be sure
    share = 1 - others.total() / len(values)
    sure = 1 - (others.total() - blank) / (len(values) - blank)
    bare = len(found) + plain - units.total()
    if unit and bare:
        said = f"{bare:,} of {len(found) + plain:,} numbers without {unit} count as with it"
        why = f"{why}; {said}" if why else said
    codes = [text for text, count in others.most_common() if count > 1 or not _DIGIT(text)]
    keys: dict[str, Any] = {"decimal": point} if found or codes else {}
    if thousands:
        keys["thousands"] = thousands
    if unit:
        keys["unit"] = unit
    if codes:
        keys["missing"] = codes
    return Written(keys, codes, share, sure, why, next(iter(others), ""))


def decimal_of(columns: Sequence[Sequence[Any]]) -> str | None:
    """Return the decimal mark that the texts of some columns show; None if they do not."""
    votes = Counter[str]()
    for values in columns:
        texts = [value.strip() for value in values if isinstance(value, str)]
        found = [m["digits"] for text in texts if len(text) <= LONGEST and (m := _TEXT(text))]
        if len(found) >= LEAST_SHARE * len(values):
            votes.update({mark for digits in found if (mark := _mark(digits))})
    return votes.most_common(1)[0][0] if votes else None


def _mark(digits: str) -> str | None:
    """Return the mark that can only be the decimal one; None where it could be the other."""
    last = max(digits.rfind("."), digits.rfind(","))
    if last < 0 or _THREE(digits):
        return None
    mark = digits[last]
    if digits.count(mark) > 1:
        return "," if mark == "." else "."  # as thousands
    return mark


def _marks(found: Sequence[str], decimal: str | None) -> tuple[str, str | None, str]:
    """Return the decimal mark, the one between thousands, and what is not sure about them."""
    votes = Counter(mark for digits in found if (mark := _mark(digits)))
    doubtful = next((digits for digits in found if _THREE(digits)), None)
    why = ""
    if votes:
        point = votes.most_common(1)[0][0]
    elif doubtful is None:
        point = decimal or "."
    elif decimal:
        point = decimal
    else:
        point = "."
        short = [len(digits) < 4 for digits in found if digits.isdigit()]
        if "," in doubtful and not (short and all(short)):  # beside 12 and 345, 1,234 is plain
            why = f'"{doubtful}" is read as {doubtful.replace(",", "")}: if not, --decimal ,'
    other = "," if point == "." else "."
    if any(other in digits for digits in found):
        return point, other, why
    spaces = next((k for k in (" ", "'", "_") if any(set(GROUPS[k]) & set(d) for d in found)), None)
    return point, spaces, why
