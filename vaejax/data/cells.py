"""The cells of a table: the numbers that they spell, those that stand for missing values, and advice on the others."""

import math
import re
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

#: What stands for a missing value unless `missing` says otherwise.
MISSING = ("", "NA", "NaN", "nan", "?", ".", "null", "None")
# Spellings of missing values that are not among MISSING, in lower case. A cell of this kind may be text as well.
_USUAL = {"n/a", "#n/a", "na", "<na>", "nan", "nat", "null", "none", "nil", "-", "--", "missing", "#value!", "#div/0!"}
# float64 holds all integers up to here.
_EXACT = 2.0**53
_GROUP = "[,.'\u2019\u00a0\u202f\u2009 ]"


class Missing(NamedTuple):
    """The tokens that stand for a missing value.

    Attributes:
        texts: as cells without surrounding blanks.
        numbers: those that spell numbers; a cell that spells one of these in another way is missing too.
        nan: whether a token spells NaN.
    """

    texts: frozenset[str]
    numbers: frozenset[float]
    nan: bool


def missing_tokens(tokens: tuple[str, ...]) -> Missing:
    """Sorts tokens by what they spell.

    Examples:
        >>> missing_tokens(("NA", "-9.0")).numbers
        frozenset({-9.0})
    """
    texts = frozenset(token.strip() for token in tokens)
    numbers = {number(text) for text in texts}
    return Missing(texts, frozenset(v for v in numbers if v is not None), any(map(_is_nan, texts)))


def is_missing(cell: str, missing: Missing) -> bool:
    """Whether a cell stands for a missing value.

    Examples:
        >>> [is_missing(cell, missing_tokens(("-9",))) for cell in ("-9", " -9.00", "-9e0", "9")]
        [True, True, True, False]
    """
    text = cell.strip()
    return text in missing.texts or number(text) in missing.numbers or (missing.nan and _is_nan(text))


def matches(cell: str, missing: Missing) -> set[str]:
    """The tokens for which a cell stands.

    Examples:
        >>> sorted(matches("-9", missing_tokens(("-9.0", "-9", "?"))))
        ['-9', '-9.0']
    """
    value = number(cell)
    same = {text for text in missing.texts if value is not None and number(text) == value}
    same |= {text for text in missing.texts if _is_nan(cell) and _is_nan(text)}
    return same | ({cell.strip()} & missing.texts)


def number(cell: str) -> float | None:
    """Returns the number that a cell spells (also infinite), or None; NaN is none."""
    if "_" in cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def exact_number(cell: str) -> Decimal | None:
    """Returns the finite number that a cell spells, without rounding, or None.

    Examples:
        >>> exact_number("01") == exact_number("1e0"), exact_number("9007199254740993") == exact_number("9007199254740992")
        (True, False)
    """
    if number(cell) is None:
        return None
    try:
        value = Decimal(cell.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def is_rounded(cell: str) -> bool:
    """Whether a cell spells, digit by digit, a number beyond 2⁵³ that float64 does not hold.

    Examples:
        >>> is_rounded("9007199254740993"), is_rounded("9007199254740992"), is_rounded("1e300")
        (True, False, False)
    """
    value = number(cell)
    if value is None or not _EXACT <= abs(value) < math.inf or "e" in cell.lower():
        return False
    return exact_number(cell) != Decimal(value)


def looks_missing(cell: str) -> bool:
    """Whether a cell that is not a missing token is one in other software."""
    return cell.strip().lower() in _USUAL


def advice(cell: str, num_columns: int) -> str | None:
    """Returns what to do about a cell that does not spell a number, or None where nothing specific is known.

    Args:
        cell: without surrounding blanks.
        num_columns: cells of a row.
    """
    decimal = "write decimals with a point"
    if re.fullmatch(r"[+-]?\d{1,3}([.'\u2019\u00a0\u202f ]\d{3})+,\d+", cell):
        return f"{decimal} and remove the thousands separators"
    if re.fullmatch(r"[+-]?\d{1,3},\d{3}", cell):
        return f"remove the thousands separators, or {decimal} if the comma is a decimal one"
    if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", cell):
        return decimal
    if re.fullmatch(rf"[+-]?\d{{1,3}}({_GROUP}\d{{3}})+(\.\d+)?", cell):
        blanks = ", or say delimiter=' ' if blanks separate the cells" if num_columns == 1 and " " in cell else ""
        return f"remove the thousands separators{blanks}"
    if num_columns == 1 and re.fullmatch(r"\S+(\s+\S+)+", cell):
        return "say delimiter=' ' if blanks separate the cells"
    if re.fullmatch(r"[$€£¥]?\s*[+-]?[\d.,]*\d\s*[%$€£¥]?", cell):
        return "write the number alone, without a unit"
    if cell.lower() in ("true", "false"):
        return "write 1 and 0 for true and false, name the column as labels=, or leave it out (without=)"
    separator = re.fullmatch(r"[+-]?[\d.]+([^\w\s.+-])[+-]?[\d.]+.*", cell)
    if num_columns == 1 and separator is not None:
        return f"say delimiter={separator[1]!r} if that separates the cells"
    return None


def _is_nan(text: str) -> bool:
    try:
        return math.isnan(float(text))
    except ValueError:
        return False
