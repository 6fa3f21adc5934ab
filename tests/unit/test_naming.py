"""Names, tags and patterns: one string for one series, refusals that say how to mend it, and no pattern that hurts."""

from __future__ import annotations

import re
import sys
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statsapi.naming import names as names_module
from statsapi.naming.catalogue import Catalogue
from statsapi.naming.names import (
    DECOMPOSED_MAX,
    NAME_MAX,
    canonical_key,
    canonical_name,
    canonical_names,
    fold_tags,
    normalized,
    split_name,
    tag_value,
)
from statsapi.naming.patterns import Glob, Selection, Where

# What the first versions took for a name: their journals hold such ones.
FIRST_NAMES = re.compile(r"(?!(?:.*/)?\.\.?(?:/|\Z))[A-Za-z0-9_.][A-Za-z0-9_.:/@=+\-]{0,199}\Z", re.ASCII)

printable = st.characters(exclude_categories=["C", "Z"], include_characters=" ", exclude_characters=";=")
words = st.text(printable, min_size=1, max_size=8).map(lambda s: unicodedata.normalize("NFC", s.strip())).filter(bool)
bases = words.filter(lambda base: base[0] not in "=+-@")
tag_sets = st.dictionaries(words, words, max_size=4)


@pytest.mark.parametrize(
    "name",
    [
        "default",
        "/api/users",
        "GET /users",
        "Länge",
        "a",
        "x" * NAME_MAX,
        "µs",
        "温度",
        "web.*",
        "why?",
        'say "hi", please',
        "<b>",
        "latency;route=/users;status=200",
        "..",
        "a=b",
        "50%",
        "k;v=a=b",
    ],
)
def test_these_are_names_as_they_stand(name: str) -> None:
    """Printable text of any script, with or without tags."""
    assert canonical_name(name) == name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("La\u0308nge", "Länge"),
        ("a;k=2;j=1", "a;j=1;k=2"),
        ("a;k=1;k=1", "a;k=1"),
        ("a;K=1;k=1", "a;K=1;k=1"),
        ("a;o\u0308=u\u0308", "a;ö=ü"),
    ],
)
def test_one_series_has_one_name(written: str, name: str) -> None:
    """Accents in two parts and tags in any order give the same string."""
    assert canonical_name(written) == name


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "is empty: give it a name"),
        (";k=v", "is empty before its tags"),
        (" a", "blank at an end"),
        ("a ", "blank at an end"),
        ("a ;k=v", "blank before the semicolon"),
        ("a; k=v", "the key ' k' of a tag must not begin or end"),
        ("a;k=v ", "blank at an end"),
        ("a;k= v;l=w", "the value of its tag 'k' must not begin or end"),
        ("=1+1", "begins with =, which spreadsheets"),
        ("+1", "begins with +"),
        ("-1", "begins with -"),
        ("@a", "begins with @"),
        ("a\nb", "U+000A (a control character)"),
        ("a\x00", "U+0000"),
        ("a\u200db", "U+200D (ZERO WIDTH JOINER)"),
        ("a\u00a0b", "U+00A0 (NO-BREAK SPACE)"),
        ("a\u2028b", "U+2028 (LINE SEPARATOR)"),
        ("a\ud800b", "U+D800"),
        ("\ufffe", "U+FFFE"),
        ("x" * (NAME_MAX + 1), "has 201 characters, with its tags: 200 at most"),
        ("a;k=" + "x" * NAME_MAX, "has 204 characters"),
        ("a;", "has '' behind a semicolon"),
        ("a;k", "has 'k' behind a semicolon"),
        ("a;=v", "a tag without a key"),
        ("a;k=", "a tag 'k' without a value"),
        ("a;k=1;k=2", "the tag 'k' twice, as '1' and as '2'"),
    ],
)
def test_a_refusal_names_the_fault(name: str, fault: str) -> None:
    """What is no name is refused with the reason, in a sentence that goes on from the name."""
    with pytest.raises(ValueError, match=re.escape(fault)):
        canonical_name(name)


MARKS = "\u0327\u0301"  # in this order they have to be sorted


@pytest.mark.parametrize(
    "text",
    [
        "a" + MARKS * 16_000,
        "a" + "\u0301" * 32_000,
        ("a" + MARKS * 15) * 1000,
        ("a" + MARKS * 15) * 20,  # 620 characters, none of which can be spared
        "\u00e4" * 65_000,
        "a" + MARKS * 50,
    ],
)
@pytest.mark.parametrize(
    "read",
    [
        canonical_name,
        canonical_key,
        Glob,
        lambda text: Where.parse(f"{text}=1"),
        lambda text: Where.parse(f"a={text}"),
        lambda text: fold_tags("a", {"k": text}),
        lambda text: fold_tags("a", {text: "v"}),
        lambda text: canonical_name(f"a;k={text}"),
    ],
)
def test_what_is_too_long_or_has_too_many_marks_is_refused_before_it_is_normalized(
    read: Callable[[str], object], text: str, normalized_texts: list[str]
) -> None:
    """To sort combining marks takes the square of their number: 32,000 in a row hold the interpreter for a second."""
    with pytest.raises(ValueError, match=r"^(must be a pattern of 1 to 200 characters: it )?has .*: (200|30) at most"):
        read(text)
    assert not normalized_texts


@pytest.mark.parametrize(
    "text",
    [
        "\u03b1\u0313\u0300\u0345" * NAME_MAX,  # each four are one character, the most there is
        "\u1100\u1161\u11a8" * NAME_MAX,
        ("a" + MARKS * 15) * 6,
        "\u00e4" * NAME_MAX,
        "*" * 2000 + "e\u0301" * 199,
    ],
)
def test_a_name_may_be_longer_before_it_is_normalized(text: str) -> None:
    """Four characters can become one, and 30 marks may stand behind a character."""
    assert Glob(text).pattern == re.sub(r"\*+", "*", unicodedata.normalize("NFC", text))
    if "*" not in text:
        assert canonical_name(text) == canonical_key(text) == normalized(text) == unicodedata.normalize("NFC", text)


odd_texts = st.one_of(
    st.text(st.sampled_from("a\u0301\u0300\U0001f600\u1e69é;=\n 9"), max_size=12),
    st.builds(lambda a, marks, b: a + "\u0301" * marks + b, words, st.integers(25, 35), words),
    st.builds(lambda text, times: text * times, words, st.integers(1, 60)),
)


@given(st.lists(odd_texts, max_size=8))
@settings(max_examples=300)
def test_many_names_are_those_of_each(texts: list[str]) -> None:
    """Beside whatever other texts one stands, it is the name, or none, that it is alone."""

    def alone(text: str) -> str | None:
        try:
            return canonical_name(text)
        except ValueError:
            return None

    assert list(canonical_names(texts)) == [alone(text) for text in texts]


def test_marks_are_what_unicode_says() -> None:
    """Of every code point; there are none in the planes that are not looked at."""
    for first in range(0, sys.maxunicode + 1, 0x8000):
        text = "".join(map(chr, range(first, first + 0x8000)))
        assert names_module._marks_of(text) == bytes(unicodedata.combining(each) > 0 for each in text)


SHORT = st.text(
    st.sampled_from("aZ0 ;=+-@/é\u0301\u0327가\u1100\u1161\U0001f600\u2126\ud800\t\u00a0\u0958"), max_size=32
)


@given(SHORT)
def test_a_name_without_tags_is_judged_as_one_with_them(text: str) -> None:
    """The quick way for names without tags takes what the whole way takes, and makes the same of it."""

    def outcome(of: Callable[[str], str]) -> str:
        try:
            return of(text)
        except ValueError as error:
            return f"refused: {error}"

    assert outcome(canonical_name) == outcome(names_module._canonical_name.__wrapped__)


def test_no_character_is_made_of_more_than_four() -> None:
    """The bound on a text before it is normalized holds for all of Unicode."""
    letters = map(chr, range(0x110000))
    longest = max(letters, key=lambda c: len(unicodedata.normalize("NFD", c)) * unicodedata.is_normalized("NFC", c))
    assert len(unicodedata.normalize("NFD", longest)) == DECOMPOSED_MAX


@pytest.mark.slow
@settings(max_examples=5 * settings.default.max_examples)
@given(st.from_regex(FIRST_NAMES, fullmatch=True))
def test_every_name_there_was_is_still_one(name: str) -> None:
    """What the first rule took stays the same string: journals hold such names."""
    assert canonical_name(name) == name


def test_more_tags_than_fit_are_refused_unread() -> None:
    """Of one event they may be 16,000: to make a name of them took 10 ms."""
    with pytest.raises(ValueError, match=r"has 1,000 tags, of which 50 fit into its 200 characters at most"):
        fold_tags("a", {str(at): None for at in range(1000)})


@given(st.text(max_size=30))
def test_what_is_canonical_stays_so(text: str) -> None:
    """Bringing a name into its form once is enough; it is printable, NFC, and no spreadsheet runs it."""
    try:
        name = canonical_name(text)
    except ValueError:
        return
    assert canonical_name(name) == name == unicodedata.normalize("NFC", name)
    assert name.isprintable()
    assert name == name.strip(" ")
    assert name[0] not in "=+-@"


@given(bases, tag_sets, st.randoms(use_true_random=False))
def test_tags_fold_into_the_name_and_out_of_it(base: str, tags: dict[str, str], dice) -> None:  # type: ignore[no-untyped-def]
    """In any order, in the name or beside it, a set of tags is one series; and it can be read back."""
    shuffled = list(tags.items())
    dice.shuffle(shuffled)
    cut = dice.randint(0, len(shuffled))
    name = fold_tags(base, tags)
    in_name = ";".join([base, *(f"{key}={value}" for key, value in shuffled[:cut])])
    assert fold_tags(in_name, dict(shuffled[cut:])) == fold_tags(in_name, tags) == name
    assert split_name(name) == (base, tags)
    assert list(split_name(name)[1]) == sorted(tags)
    assert canonical_name(name) == name
    for key, value in tags.items():
        assert tag_value(name, key) == value
    assert tag_value(name, "no such key") is None


@pytest.mark.parametrize(
    ("tags", "name"),
    [({"status": 200}, "a;status=200"), ({"cached": True}, "a;cached=true"), ({"n": -1}, "a;n=-1"), ({}, "a")],
)
def test_numbers_and_booleans_are_tags(tags: dict[str, object], name: str) -> None:
    """Written as JSON writes them."""
    assert fold_tags("a", tags) == name


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        ({"k": 1.5}, "a tag 'k' that is a number with decimals: give it as a string"),
        ({"k": None}, "a tag 'k' that is null"),
        ({"k": ["a"]}, "a tag 'k' that is not one value"),
        ({"k": ""}, "a tag 'k' without a value"),
        ({"k": "a;b"}, "whose value holds a semicolon"),
        ({"k;l": "a"}, "whose key 'k;l' holds = or ;"),
        ({"k=l": "a"}, "whose key 'k=l' holds = or ;"),
        ({"": "a"}, "a tag without a key"),
        ({"held": "other"}, "the tag 'held' twice, as 'one' and as 'other'"),
    ],
)
def test_a_tag_that_is_none_is_refused(tags: dict[str, object], fault: str) -> None:
    """Beside a name that carries a tag already; the message names the tag."""
    with pytest.raises(ValueError, match=re.escape(fault)):
        fold_tags("a;held=one", tags)


def naive_glob(pattern: str, text: str) -> bool:
    """By the definition, one character at a time."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return naive_glob(pattern[1:], text) or bool(text and naive_glob(pattern, text[1:]))
    return bool(text) and pattern[0] in ("?", text[0]) and naive_glob(pattern[1:], text[1:])


@settings(max_examples=10 * settings.default.max_examples)
@given(st.text("ab.*?", min_size=1, max_size=8), st.text("ab.", max_size=10))
def test_a_glob_means_what_it_says(pattern: str, text: str) -> None:
    """As the definition by one character at a time."""
    assert Glob(pattern).matches(text) == naive_glob(pattern, text)


def test_what_only_looks_like_a_pattern_is_itself() -> None:
    """Brackets, braces, dots and backslashes have no meaning; case has one."""
    assert Glob("a[b].{c}\\d(e|f)^$+").matches("a[b].{c}\\d(e|f)^$+")
    assert not Glob("[ab]").matches("a")
    assert not Glob("Web*").matches("web1")
    assert Glob("L\u00e4*").matches(canonical_name("La\u0308nge"))


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 100, "*" + "a" * 100 + "b*", "*?" * 100, ("*" + "a?" * 10) * 9 + "*b", "*a*" + "?" * 150 + "*b", "*" * 200],
)
def test_a_hostile_pattern_costs_little(pattern: str) -> None:
    """A thousand names of 200 equal characters in well under a second, where backtracking would need years."""
    glob = Glob(pattern)
    names = ["a" * NAME_MAX] * 1000
    began_s = time.perf_counter()
    for name in names:
        glob.matches(name)
    assert time.perf_counter() - began_s < 2.0


@pytest.mark.parametrize("pattern", ["", "a" * (NAME_MAX + 1)])
def test_a_pattern_has_a_length(pattern: str) -> None:
    """Neither nothing nor more than a name can have."""
    with pytest.raises(ValueError, match="must be a pattern of 1 to 200 characters"):
        Glob(pattern)


@pytest.mark.parametrize("text", ["status", "=5*", "a;b=c", "k="])
def test_a_condition_is_a_tag_and_a_pattern(text: str) -> None:
    """What is neither is refused."""
    with pytest.raises(ValueError, match=r"must be|has a tag"):
        Where.parse(text)


HELD = sorted(
    [
        "default",
        "web.a",
        "web.b",
        "wec",
        "latency;route=/users;status=200",
        "latency;route=/users;status=500",
        "latency;route=/orders;status=503",
        "latency;region=eu;status=5=3",
    ]
)

names = st.sampled_from([*HELD, "unknown"])
globs = st.sampled_from(["web.*", "w*", "*", "lat*5*", "latency;*", "??fault", "x*"]).map(Glob)
wheres = st.sampled_from(["status=5*", "route=/users", "status=*", "region=e?", "none=*"]).map(Where.parse)


@given(st.frozensets(names), st.lists(globs, max_size=3), st.lists(wheres, max_size=2), st.integers(1, 5))
def test_a_selection_is_names_and_patterns_narrowed_by_tags(
    chosen: frozenset[str], some: list[Glob], where: list[Where], slice_names: int
) -> None:
    """Named or fitting a pattern, all of them where neither is given; and every condition holds."""
    selection = Selection(chosen, tuple(some), tuple(where))
    expected = [
        name
        for name in HELD
        if (name in chosen or any(glob.matches(name) for glob in some) or not (chosen or some))
        and all(
            any(part.startswith(f"{w.key}=") and w.glob.matches(part.partition("=")[2]) for part in name.split(";")[1:])
            for w in where
        )
    ]
    assert [name for piece in selection.among(HELD, slice_names) for name in piece] == expected
    assert [name for name in HELD if selection.matches(name)] == expected
    assert Catalogue().chosen(HELD, selection) == expected


def test_the_catalogue_counts_tags() -> None:
    """Keys and values with the number of series that carry them, among all or the chosen ones."""
    catalogue = Catalogue()
    assert catalogue.tag_keys(HELD) == {"region": 1, "route": 3, "status": 4}
    assert catalogue.tag_values(HELD, "status") == {"200": 1, "5=3": 1, "500": 1, "503": 1}
    users = Selection(where=(Where.parse("route=/users"),))
    assert catalogue.tag_keys(HELD, users) == {"route": 2, "status": 2}
    assert catalogue.tag_values(HELD, "status", users) == {"200": 1, "500": 1}
    assert catalogue.tag_values(HELD, "none") == {}
    assert catalogue.chosen(HELD, users) is catalogue.chosen(HELD, users)
    more = sorted([*HELD, "latency;route=/users;status=404"])
    assert catalogue.tag_values(more, "status", users) == {"200": 1, "404": 1, "500": 1}
    assert catalogue.tag_keys([]) == {}
