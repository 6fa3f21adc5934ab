"""Numbers out of the bytes of a body, eight letters at a time: each uint64 holds eight, the first in its lowest byte.

A column of 10,000 numbers is read by some 40 numpy calls of 2 µs each, without a Python object for any number. It is
the way of Daniel Lemire ("Quickly parsing eight digits", 2018), for whole columns. These calls never misread: where
they are not sure, they return None, and the texts are read one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from statsapi.model import Values

Words = NDArray[np.uint64]
Letters = NDArray[np.uint8]
Places = NDArray[np.intp]

_FLOATS: Final = msgspec.json.Decoder(list[float])

# More than the shortest text of any double has (-2.2250738585072014e-308, 24 letters). A column with a longer text is
# left to the careful way.
_LONGEST: Final = 31


def every(letter: int) -> np.uint64:
    """A word of eight times this byte."""
    return np.uint64(letter * 0x0101010101010101)


HIGH_BITS: Final = every(0x80)
_ZEROS: Final = every(ord("0"))
_BLANKS: Final = every(ord(" "))
_NEVER_TEN: Final = every(0x76)  # added to a byte of 10 or more it sets that byte's high bit
_SIXTEEN: Final = every(0x10)
_POINT: Final = np.uint64(ord(".") ^ ord("0"))
_NONE: Final = np.uint64(0)
_ALL: Final = np.uint64(0xFF)
_ONE, _FOUR, _EIGHT, _SIXTEEN_BITS = (np.uint64(bits) for bits in (1, 4, 8, 16))
_THIRTY_TWO, _FIFTY_SIX, _TEN = np.uint64(32), np.uint64(56), np.uint64(10)
_PAIRS: Final = np.uint64(0x000000FF000000FF)
_UPPER: Final = np.uint64(100 + (1_000_000 << 32))
_LOWER: Final = np.uint64(1 + (10_000 << 32))

# By how many of the eight letters are kept, the last ones.
_KEPT: Final = np.array([((1 << 64) - 1) >> 8 * (8 - n) << 8 * (8 - n) for n in range(9)], np.uint64)
# The divisor by how many digits stand behind the point. Both operands are exact, so the quotient is rounded once.
_TENS: Final = 10.0 ** np.arange(16)
_EXACT: Final = 2**53
_INT64_MAX: Final = 2**63 - 1

# Bytes that are compared at once.
_AT_ONCE: Final = 1 << 20


def windows(text: bytes, at: Places, width: int) -> Words:
    """The `width` letters that begin at each place: uint64[width / 8, n]. `width` is a multiple of 8. IndexError where
    a place is too near the end.

    One copy for each row, whatever its width: 3 ns, where taking its letters one by one takes 0.5 ns each.
    """
    sliding: NDArray[np.void] = np.ndarray((len(text) - width + 1,), f"V{width}", text, 0, (1,))
    found = sliding[at].view("<u8").reshape(len(at), width // 8)
    return found.T if width == 8 else np.array(found.T, order="C")


def places_of(text: bytes, letter: int, at: int, to: int, most: int) -> Places | None:
    """Where an ASCII letter stands in text[at:to]; None where it does more than `most` times. 0.1 ns a byte."""
    found = []
    total = 0
    for start in range(at, to, _AT_ONCE):
        count = min(_AT_ONCE, to - start)
        same = np.zeros(count + -count % 8, np.bool_)
        np.equal(np.frombuffer(text, np.uint8, count, start), letter, out=same[:count])
        # A word holds eight comparisons, and hardly ever are two of them true: an eighth as many words to look through.
        words = same.view("<u8")
        some = np.flatnonzero(words != 0)
        words = words[some]
        if (words & words - _ONE).any():
            places = np.flatnonzero(same)
        else:
            places = some * 8 + (np.bitwise_count(words - _ONE) >> 3)
        total += len(places)
        if total > most:
            return None
        found.append(places + start)
    return np.concatenate(found) if found else np.empty(0, np.intp)


def differ(words: Words, same: bytes, looked_at: bytes) -> bool:
    """Whether any column of `words`, uint64[words, n], differs from `same` in a bit that is set in `looked_at`."""
    differing = None
    for word, expected, mask in zip(words, _words_of(same), _words_of(looked_at), strict=True):
        if mask:
            here = (word ^ expected) & mask
            differing = here if differing is None else differing | here
    return differing is not None and bool(differing.any())


@lru_cache(maxsize=256)
def _words_of(text: bytes) -> list[np.uint64]:
    return list(np.frombuffer(text, "<u8"))


def read_digits(words: Words, width: int) -> NDArray[np.int64] | None:
    """The integers whose `width` digits begin each column of words, 9 to 19. None where one is something else, begins
    with a 0, or is beyond int64.
    """
    number = np.zeros(words.shape[1], np.uint64)
    wrong = number.copy()
    for at, word in enumerate(words):
        digits = word ^ _ZEROS
        count = min(8, width - 8 * at)
        if count < 8:
            digits <<= np.uint64(8 * (8 - count))
        wrong |= digits | digits + _NEVER_TEN
        number *= np.uint64(10**count)
        number += eight_digits(digits)
    leading = (words[0] & _ALL) == ord("0")
    if (wrong & HIGH_BITS).any() or leading.any() or int(number.max()) > _INT64_MAX:
        return None
    return number.view(np.int64)


def within(words: Words, least: Sequence[np.uint64], most: Sequence[np.uint64]) -> NDArray[np.bool_]:
    """Where each letter of a text, uint64[words, n], is ASCII and between these bounds, which are ASCII too."""
    known = np.full(words.shape[1], HIGH_BITS)
    for word, floor, top in zip(words, least, most, strict=True):
        if floor == top:
            known &= np.where(word == floor, HIGH_BITS, _NONE)
            continue
        # No letter borrows from the next one: 128 or more less 127 at most.
        known &= (word | HIGH_BITS) - floor
        known &= (top | HIGH_BITS) - word
        known &= ~word
    return cast(NDArray[np.bool_], known == HIGH_BITS)


def eight_digits(words: Words) -> Words:
    """The number of each word whose bytes are digits as numbers, 0 to 9."""
    pairs = words * _TEN
    pairs += words >> _EIGHT
    upper = pairs & _PAIRS
    upper *= _UPPER
    pairs >>= _SIXTEEN_BITS
    pairs &= _PAIRS
    pairs *= _LOWER
    pairs += upper
    pairs >>= _THIRTY_TWO
    return pairs


def read_numbers(text: bytes, begins: Places, ends: Places, *, signed_zeros: bool) -> Values | None:
    """float() of each text[begins:ends], where all are numbers as JSON writes them, without blanks. None otherwise.

    Before the first of them lie 32 letters at least, and 8 behind the last. signed_zeros: whether -0 is -0.0, as for
    float(); for msgspec it is the integer. 10 ns a number of up to 8 letters, 15 up to 16, 60 where one is longer,
    or has an exponent.
    """
    lengths = ends - begins
    if int(lengths.min()) < 1:
        return None
    letters = np.frombuffer(text, np.uint8)
    first = letters.take(begins)
    negative = first == ord("-")
    has_signs = bool(negative.any())
    digits_begin = begins
    if has_signs:
        digits_begin = begins + negative
        lengths = ends - digits_begin
        first = letters.take(digits_begin)
    first = first - np.uint8(ord("0"))
    longest = int(lengths.max())
    if longest > _LONGEST or int(lengths.min()) < 1 or int(first.max()) > 9:
        return None
    found = None
    if longest <= 16:
        zero = np.flatnonzero(first == 0)  # 01 is no JSON
        if not len(zero) or (letters.take(digits_begin[zero] + 1) - np.uint8(ord("0")) > 9).all():
            found = _one_word(text, ends, lengths) if longest <= 8 else _two_words(text, ends, lengths)
    if found is None:
        return _by_msgspec(text, begins, ends, negative, signed_zeros=signed_zeros)
    numbers, whole = found
    if has_signs:
        if not signed_zeros:
            negative &= ~((numbers == 0.0) & whole)
        np.negative(numbers, out=numbers, where=negative)
    return numbers


def _digits(words: Words, kept: Words) -> Words:
    """The bytes that are kept, as digits are numbers; the others 0. A point is 30."""
    digits = words ^ _ZEROS
    digits &= kept
    return digits


def _around_point(digits: Words) -> tuple[Words, Words, Words]:
    """Masks of what lies before the first point and behind it; and its byte's lowest bit, 0 where there is none: then
    all lies behind. What is neither a digit nor a point counts as a point where its bit says so.
    """
    points = digits & _SIXTEEN
    point = points & (~points + _ONE)
    point >>= _FOUR
    before = point - (point != 0)
    behind = ~(before | point * _ALL)
    return before, behind, point


def _one_word(text: bytes, ends: Places, lengths: Places) -> tuple[Values, NDArray[np.bool_]] | None:
    """Numbers of up to eight letters without a sign, and which have no point. None where one is something else."""
    (words,) = windows(text, ends - 8, 8)
    digits = _digits(words, _KEPT.take(lengths))
    before, behind, point = _around_point(digits)
    wrong = (digits ^ point * _POINT) & point * _ALL
    before &= digits
    before <<= _EIGHT
    digits &= behind
    digits |= before
    wrong |= (digits | digits + _NEVER_TEN) & HIGH_BITS
    decimals = np.bitwise_count(behind) >> 3
    if wrong.any() or not decimals.all():  # a point at the end
        return None
    decimals &= 7  # no point leaves all eight behind
    return eight_digits(digits) / _TENS.take(decimals), point == 0


def _two_words(text: bytes, ends: Places, lengths: Places) -> tuple[Values, NDArray[np.bool_]] | None:
    """The same up to sixteen letters."""
    upper_words, lower_words = windows(text, ends - 16, 16)
    upper = _digits(upper_words, _KEPT.take(np.maximum(lengths - 8, 0)))
    lower = _digits(lower_words, _KEPT.take(np.minimum(lengths, 8)))
    before, behind, point = _around_point(lower)
    wrong = (lower ^ point * _POINT) & point * _ALL
    decimals = np.bitwise_count(behind) >> 3
    without = point == 0
    before &= lower
    before <<= _EIGHT
    # What lies before a point moves by a letter, out of the upper word too.
    before |= np.where(without, np.uint64(0), upper >> _FIFTY_SIX)
    lower &= behind
    lower |= before
    before, behind, point = _around_point(upper)
    wrong |= (upper ^ point * _POINT) & point * _ALL
    has_two = (point != 0) & ~without
    upper_decimals = np.bitwise_count(behind) >> 3
    whole = without & (point == 0)
    before &= upper
    before <<= _EIGHT
    upper = np.where(without, (upper & behind) | before, upper << _EIGHT)
    wrong |= ((upper | upper + _NEVER_TEN) | (lower | lower + _NEVER_TEN)) & HIGH_BITS
    decimals = np.where(without, 8 + upper_decimals, decimals)
    if wrong.any() or has_two.any() or not decimals.all():
        return None
    decimals[whole] = 0
    number = eight_digits(upper) * np.uint64(100_000_000)
    number += eight_digits(lower)
    if int(number.max()) > _EXACT:
        return None
    return number / _TENS.take(decimals), whole


def _by_msgspec(
    text: bytes, begins: Places, ends: Places, negative: NDArray[np.bool_], *, signed_zeros: bool
) -> Values | None:
    """The same as one JSON list: blanks before each number up to the width of the longest, and a comma behind."""
    lengths = ends - begins
    width = (int(lengths.max()) + 8) & -8
    words = windows(text, ends + 1 - width, width)
    # The letter behind a number becomes its comma.
    for row, word in enumerate(words):
        kept = _KEPT.take(np.clip(lengths + 1 - (width - 8 * (row + 1)), 0, 8))
        word ^= _BLANKS
        word &= kept
        if row == len(words) - 1:
            word &= ~_KEPT[1]
            word |= np.uint64(ord(",") ^ ord(" ")) << _FIFTY_SIX
        # A blank, or what is less than one, would be 0 to 31 now were it not for letters beyond it: told apart below.
        word ^= _BLANKS
    listed = np.ascontiguousarray(words.T).view(np.uint8).reshape(len(begins), width)
    if int((listed > ord(" ")).sum()) != int(lengths.sum()) + len(begins):
        return None  # a blank within: it may be a line end
    try:
        numbers = _FLOATS.decode(b"[%s]" % listed.tobytes()[:-1])
    except ValueError:
        return None
    if len(numbers) != len(begins):
        return None
    found = np.fromiter(numbers, np.float64, len(numbers))
    if signed_zeros:
        np.copysign(found, -1.0, out=found, where=negative & (found == 0.0))
    return found
