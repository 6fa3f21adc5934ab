"""Guesses what an unreadable body or value is, and says what to send instead.

Guesses never change how a body is read; they only help a person whose request was refused. They look at the first 4 KiB
of a body, and are made for a refusal only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from statsapi.errors import echo

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"

_HEAD_BYTES: Final = 4096
_EAT_LINE_ENDS: Final = "curl's -d @FILE takes the line ends out: send the file with --data-binary @FILE"

# How binary files begin, what they are, and what to do about them.
_MAGIC: Final = (
    (b"\x1f\x8b", "gzip", "say so with the header Content-Encoding: gzip (curl: -H 'Content-Encoding: gzip')"),
    (b"PK\x03\x04", "a zip archive, as .xlsx and .ods are", "unpack it, or save the sheet as CSV"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unpack it, or pack it with gzip"),
    (b"BZh", "bzip2", "unpack it, or pack it with gzip"),
    (b"\xfd7zXZ\x00", "xz", "unpack it, or pack it with gzip"),
    (b"\x04\x22\x4d\x18", "lz4", "unpack it, or pack it with gzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it, or pack it with gzip"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy", "unpack it, or pack it with gzip"),
    (b"\x78\x01", "zlib (deflate)", "pack it with gzip"),
    (b"\x78\x9c", "zlib (deflate)", "pack it with gzip"),
    (b"\x78\xda", "zlib (deflate)", "pack it with gzip"),
    (b"PAR1", "Parquet", "write it as CSV (pandas: to_csv('FILE', index=False))"),
    (b"ARROW1", "Arrow", "write it as CSV (pandas: to_csv('FILE', index=False))"),
    (b"Obj\x01", "Avro", "write it as NDJSON or CSV"),
    (b"\x89HDF", "HDF5", "write it as CSV"),
    (b"SQLite format 3\x00", "an SQLite file", "export it as CSV (sqlite3 -header -csv)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file (.xls)", "save the sheet as CSV"),
    (b"%PDF-", "a PDF", "send the numbers as CSV or JSON"),
)

_COLUMN: Final = "(?:timestamp|value|series)"
_NUMBER: Final = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_MOMENT: Final = r"(?:\d{4}-\d\d-\d\d[^,;\t|\n]*|\d{1,2}[./]\d{1,2}[./]\d{4}[^,;\t|\n]*|\d{9,19}(?:\.\d+)?)"


class _Text(NamedTuple):
    """A kind of text: `form` is its media type, if we take it, and `cure` says what it is or what to do."""

    pattern: re.Pattern[str]
    form: str | None
    cure: str


def _text(pattern: str, cure: str, form: str | None = None) -> _Text:
    return _Text(re.compile(pattern), form, cure)


# The closing quote is optional: with a required one, 4 KiB of escaped quotes took 0.1 s.
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_OBJECT: Final = _text(r"\{", "is a JSON object", JSON)
_EVENT: Final = _text(r"\{[^{}\[\]]*\}\s*\Z", "is a single event", JSON)
_SPREAD: Final = _text(
    r"\{[^{}]*\n[^{}]*\}\s*\{",
    "is JSON objects spread over several lines: put each on one line (jq -c), or all into one array (jq -s)",
)

# The first that matches counts, so narrow patterns stand before wide ones.
_TEXTS: Final = (
    _text(r"@[^\s{}\[\]]+\s*\Z", "is the name of a file, not the file: send it with curl's --data-binary @FILE"),
    _text(r"--[^\n]+\r?\nContent-Disposition:", "is a form's upload (curl -F): send it with --data-binary @FILE"),
    _text(r"(?:%7B|%5B)", "is percent-encoded (curl --data-urlencode): send it with --data-binary"),
    _text(r"(?i)<(?:!doctype html|html)", "is a page of HTML: is the file what you meant to fetch?"),
    _text(r"<", "is XML: send JSON, NDJSON or CSV"),
    _text(
        rf"{_COLUMN}(?:,{_COLUMN})+(?=[\d\"'+-])[^\r\n]*\Z",
        f"is CSV whose line ends are gone: {_EAT_LINE_ENDS}",
    ),
    _text(rf"{_MOMENT},{_NUMBER}?\d{{4}}-\d\d-\d\d[^\r\n]*\Z", f"is CSV whose line ends are gone: {_EAT_LINE_ENDS}"),
    _SPREAD,
    _text(r"\{[^{}]*\}[ \t]*\r(?!\n)\s*\{", "is NDJSON with CR alone at the line ends: send LF there (tr '\\r' '\\n')"),
    _text(r"\{[^{}]*\}[ \t]*\r?\n\s*\{", "is NDJSON, one JSON object a line", NDJSON),
    _text(r"\{[^{}]*\}(?:[ \t]*,)?[ \t]*\{", f"is several JSON objects in one line: {_EAT_LINE_ENDS} as NDJSON"),
    _text(r"\{[^{}]*\}[ \t]*,[ \t]*\r?\n\s*\{", "is JSON objects with commas between: put [ before and ] after them"),
    _text(
        r"'[\[{]",
        "begins with a single quote, which Windows' command line passes on: put the JSON into a file and send it with "
        "--data-binary @FILE",
    ),
    _text(r"[\[{]\s*(?:\{\s*)?'", "has single quotes, as Python's str() writes: JSON has double ones (json.dumps)"),
    _text(
        r"[\[{]\s*(?:\{\s*)?\\",
        "has backslashes before its quotes, which a shell has passed on: put the JSON into a file and send it with "
        "--data-binary @FILE",
    ),
    _text(r"[\[{][^\"]*[“”„«]", 'has typographic quotes: JSON takes plain ones (") only'),
    _text(r"[\[{]\s*(?:\{\s*)?[A-Za-z_]\w*\s*:", 'has names without quotes, which a shell may have taken: "timestamp"'),
    _text(r"//|/\*|#[^\n]*\n\s*[\[{]|[\[{][\s\S]*?(?://|/\*|[\n,\[{]\s*#)", "has a comment, which JSON does not take"),
    _text(
        r"[\[{][\s\S]*?:\s*(-?\d+),(\d+)\s*[,}]",
        "has a decimal comma in a number: write it with a point, such as 1.5",
    ),
    _text(
        r"[\[{][\s\S]*?:\s*-?(?:None|True|False|undefined|nan|NAN|inf|Inf|NULL|Null|nil|NA)\b",
        "has words of a programming language: JSON writes null, and an event without a value is left out",
    ),
    _text(
        r"[\[{][\s\S]*?:\s*(?:\+\d|\.\d|-\.\d|0\d|-?0[xX]|-?\d+_\d|\d+\.\s*[,}])",
        "has a number as JSON does not write it: decimal digits alone, no plus, no leading 0, a digit before and "
        "behind the point",
    ),
    _text(r"[\[{][\s\S]*?,\s*[\]}]", "has a comma before a closing bracket: take it out"),
    _text(r"\[\s*(?:\{[^{}]*\}\s*,\s*)*\{[^{}]*\}\s*\{", "has no comma between two of its objects: put one there"),
    _text(r"\[", "is a JSON array", JSON),
    _EVENT,
    _OBJECT,
    _text(
        r"#\s*(?:TYPE|HELP)\s|[A-Za-z_:][\w:]*(?:\{[^}\n]*\})? -?[\d.]+(?:e[+-]?\d+)?(?: \d+)?\s*(?:\n|\Z)",
        "is Prometheus' text format: send each sample as an event in JSON or CSV",
    ),
    _text(
        r"[\w.:-]+:-?[\d.]+\|(?:ms|[cghsd])\b",
        "is StatsD: `statsapi statsd` takes its datagrams; here send each value as an event in JSON or CSV",
    ),
    _text(
        r"[^\s,={}\[\]]+(?:,[^\s,=]+=(?:\\.|[^\s,\\])+)* [^\s=]+=[^\n]*",
        "is InfluxDB's line protocol: send it to POST /write",
    ),
    _text(
        rf"[\w.-]+ {_NUMBER} \d{{9,13}}\s*(?:\n|\Z)",
        "is Graphite's plain text: send each line as an event in JSON or CSV",
    ),
    _text(
        r"[\w.\[\]%-]+=[^&\n]*(?:&[\w.\[\]%-]+=[^&\n]*)*(?:\n\s*)?\Z",
        "is a form's fields (curl -d NAME=VALUE): send JSON",
    ),
    _text(r"(?:---\s*\n)?(?:- )?(?:timestamp|value|series)[ ]*: ", "is YAML: send JSON"),
    _text(rf"\"?{_COLUMN}\"?[ ]*[,;\t|]", "is CSV", CSV),
    _text(rf"[^\n,;\t|]*[,;\t|](?:[^\n]*[,;\t|])?\"?{_COLUMN}\"?\s*(?:[,;\t|\n]|\Z)", "is CSV", CSV),
    _text(rf"\"?{_MOMENT}\"?[,;\t|]", "is CSV without its first line, which names the columns: timestamp,value", CSV),
    _text(r"[^\r\n,;\t|]*([,;\t|])[^\r\n]*[\r\n]+[^\r\n]*\1", "is CSV", CSV),
    _text(
        r"[^\r\n]*[^\r\n,;\t|][,;\t|][^\r\n]*\Z",
        f"is one line: if it comes from a file of several, {_EAT_LINE_ENDS}",
    ),
    _text(rf"{_NUMBER}\s*\Z", 'is a number alone: send {"timestamp": "2025-11-21T07:45:00Z", "value": 42.5}'),
)


def unreadable(body: bytes) -> str | None:
    """What a binary body, or UTF-16 or UTF-32, is and what to do; None for other text."""
    for magic, name, remedy in _MAGIC:
        if body.startswith(magic):
            return f"looks like {name}: {remedy}"
    encoding = _wide_encoding(body)
    return encoding and (
        f"is {encoding}, as Excel's Unicode text and PowerShell's > are: send UTF-8 (iconv -f {encoding} -t UTF-8 "
        "FILE; in PowerShell: Out-File -Encoding utf8)"
    )


def cure(body: bytes, sent_as: str | None) -> str | None:
    """A sentence that says what the body looks like and what to send; None where it looks like `sent_as`."""
    if found := unreadable(body):
        return f"The body {found}."
    text = body[:_HEAD_BYTES].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text[:1] in ("[", "{"):
        text = _STRING.sub('""', text)  # the contents of strings are no fault of the JSON
    for known in _TEXTS:
        if known.pattern.match(text):
            if sent_as == NDJSON and known in (_EVENT, _OBJECT):
                known = _SPREAD
                if not re.match(r"\{[^{}]*\n", text):
                    return None
            if known.form == sent_as is not None:
                return None
            is_it = f"looks like {known.cure[3:]}" if known.cure.startswith("is ") else known.cure
            one = "to POST /event " if known is _EVENT else ""
            return f"The body {is_it}." if known.form is None else f"The body {is_it}: send it {one}{_to(known.form)}."
    return None


def _to(form: str) -> str:
    endpoint = "to POST /events " if form != JSON else ""
    how = " --data-binary @FILE" if form != JSON else ""
    return f"{endpoint}with Content-Type: {form} (curl: -H 'Content-Type: {form}'{how})"


def _wide_encoding(body: bytes) -> str | None:
    if body.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "UTF-32"
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    head = body[:64]
    if len(head) >= 4 and (not any(head[1::2]) or not any(head[::2])):
        return "UTF-16LE" if head[0] else "UTF-16BE"
    return None


# -- CSV -----------------------------------------------------------------------------------------------------------

COLUMNS: Final = ("timestamp", "value", "series")
_SHOWN: Final = "timestamp,value or timestamp,value,series"
_DELIMITERS: Final = {";": "semicolons", "\t": "tabs", "|": "bars (|)", " ": "blanks"}
_DELIMITER_WORDS: Final = {";": "%3B", "\t": "tab", "|": "%7C", " ": "space"}  # in a URL
_COMMENT: Final = "is a comment, which CSV does not have: take it out (grep -v '^#' FILE)"

_COLUMNS_NAMED_MAX: Final = 2000

_MEANT: Final = {
    name: column
    for column, names in {
        "timestamp": "time date datetime ts t when at zeit zeitpunkt zeitstempel datum uhrzeit fecha hora heure _time "
        "date_time @timestamp timestamp_utc unixtime epoch created created_at time_stamp timestamps",
        "value": "val wert valeur valor v y amount reading measurement measure number data count usage _value values "
        "messwert temperature temp price",
        "series": "name metric sensor tag host id device serie key _measurement _field label",
    }.items()
    for name in names.split()
}


def header_faults(names: Sequence[str], body: bytes | None = None) -> dict[str, list[str]]:
    """What is wrong with a CSV's first line, by column; {} for nothing. The key "_schema" is the line as a whole."""
    if not Counter(names) - Counter(COLUMNS) and {"timestamp", "value"} <= set(names):
        return {}
    if len(names) > _COLUMNS_NAMED_MAX:
        return {"_schema": [f"the first line names {len(names)} columns: {_SHOWN} is what it may name"]}
    if body is not None and not body.strip(b"\xef\xbb\xbf\r\n "):
        reason = f"is missing, as the body is empty: send a line that names the columns, {_SHOWN}, and then the events"
        return {name: [reason] for name in COLUMNS[:2]}
    if not any(names):
        return {name: [f"is missing from the first line, which names the columns: {_SHOWN}"] for name in COLUMNS[:2]}
    if fault := _line_fault(names, body or b""):
        return {"_schema": [fault]}
    faults = _column_faults(names)
    if body is not None and not re.search(rb"[\r\n]", body.strip()):
        name = next(iter(faults))
        faults[name] = [f"{faults[name][0]}; and there are no rows behind the first line"]
    return faults


def _line_fault(names: Sequence[str], body: bytes) -> str | None:
    """What is wrong with the first line as a whole: it is not a list of names, or not one separated by commas."""
    line = ",".join(names)
    if re.match(rf"{_COLUMN}(?:,{_COLUMN})+(?=[\d\"'+-])", line):
        return f"the first line is both the names of columns and data: {_EAT_LINE_ENDS}"
    if names[0].startswith("sep="):
        return f"the first line, {echo(line)!r}, is for Excel alone: take it out"
    if names[0].startswith("#") and not _meant(names[0]):
        return f"the first line, {echo(line)!r}, {_COMMENT}"
    for delimiter, called in _DELIMITERS.items():
        split = line.split(delimiter) if delimiter != " " else line.split()
        if delimiter == " " and not {"timestamp", "value"} <= {name.strip('"') for name in split}:
            continue
        if len(split) > 1 and len(split) >= len(names) and not set(names) & set(COLUMNS):
            reason = f"the columns are separated by {called} in {echo(line)!r}: separate them with commas"
            if any(map(_is_moment, split)):
                reason += f", and put a line before it that names them, {_SHOWN}"
            elif unknown := [name for name in split if name.strip(' "') not in COLUMNS]:
                reason += f", name them {_SHOWN} (not {', '.join(map(echo, unknown[:5]))})"
            rest = body[:_HEAD_BYTES].decode("utf-8", "replace").partition("\n")[2]
            if comma := re.search(r"\d{1,3}(?:\.\d{3})+,\d{1,20}|\d{1,20},\d{1,20}", rest):
                plain = without_separators(comma[0]) or comma[0].replace(",", ".")
                reason += f"; numbers take a point: {plain}, not {comma[0]}"
            if day := re.search(r"\b(\d\d?)\.(\d\d?)\.(\d{4})\b", rest):
                reason += f"; dates go from year to day: {day[3]}-{day[2]:0>2}-{day[1]:0>2}, not {day[0]}"
            return reason
    if any(map(_is_moment, names)) and not set(names) & set(COLUMNS):
        return f"the first line, {echo(line)!r}, is an event: put a line before it that names the columns, {_SHOWN}"
    return None


def _column_faults(names: Sequence[str]) -> dict[str, list[str]]:
    """What is wrong with the single names."""
    times = Counter(names)
    faults: dict[str, list[str]] = {}
    apart = {"date", "time"} <= {name.lower() for name in names}
    for place, name in enumerate(names, 1):
        if name == "":
            which = f"column {place}"
            if place == 1:
                faults[which] = [
                    "has no name: leave it out; pandas writes its index there, but for to_csv(…, index=False)"
                ]
            elif place == len(names):
                faults[which] = ["has no name: take the comma at the end of the lines away"]
            else:
                faults[which] = ["has no name: leave it out"]
        elif name not in COLUMNS:
            meant = _meant(name)
            rename = f"; is it {meant}?" if meant and meant not in names else ""
            if apart and name.lower() in ("date", "time"):
                rename = "; write date and time into one column, timestamp"
            faults[name] = [f"is not a column known here; known are: {', '.join(COLUMNS)}{rename}"]
        elif times[name] > 1:
            faults[name] = ["appears twice in the first line"]
    for name in COLUMNS[:2]:
        if name not in names:
            faults[name] = [f"is missing from the first line, which names the columns: {_SHOWN}"]
    return faults


def _meant(name: str) -> str | None:
    """The column that a name may stand for."""
    plain = name.lower().strip(" #\ufeff'\"")
    return plain if plain in COLUMNS else _MEANT.get(plain)


def _is_moment(field: str) -> bool:
    return bool(re.fullmatch(_MOMENT, field.strip(' "')))


def quoted_delimiter(body: bytes, asked: str = ",") -> str:
    """What to do where quoted fields are separated by another character than `asked`; else an empty text."""
    first = body[:_HEAD_BYTES].decode("utf-8", "replace").partition("\n")[0]
    for delimiter, called in _DELIMITERS.items():
        if delimiter != asked and (f'"{delimiter}' if delimiter != " " else '" "') in first:
            return f"Separate the columns with commas, not {called}, or say delimiter={_DELIMITER_WORDS[delimiter]}."
    return ""


def ragged(row: Sequence[str], header: Sequence[str]) -> str:
    """What is wrong with a row that has more or fewer fields than the header."""
    reason = f"has {len(row)} fields where the header has {len(header)}"
    at = header.index("value")
    if row[0].startswith("#"):
        return f"{reason}: {echo(','.join(row))!r} {_COMMENT}"
    if len(row) == 1:
        for delimiter, called in _DELIMITERS.items():
            if delimiter in row[0].strip():
                return f"{reason}: separate them with commas, not {called}"
    if len(row) == len(header) + 1:
        if re.fullmatch(r"\s*[+-]?\d{1,3}", row[at]) and re.fullmatch(r"\d{3}\.\d+\s*", row[at + 1]):
            whole, rest = echo(row[at].strip()), echo(row[at + 1].strip())
            return f"{reason}: is {whole},{rest} a number? Write {whole}{rest}"
        if re.fullmatch(r"\s*[+-]?\d+", row[at]) and re.fullmatch(r"\d+\s*", row[at + 1]):
            return (
                f"{reason}: is {echo(row[at])},{echo(row[at + 1])} a number? Write {echo(row[at])}.{echo(row[at + 1])}"
            )
        if row[-1] == "":
            return f"{reason}: take the comma at its end away"
    return reason


# -- numbers -------------------------------------------------------------------------------------------------------

_GROUPED: Final = re.compile(r"[+-]?\d{1,3}(?:([,.' \u00a0\u202f\u2009])\d{3})+(?:([.,])(\d+))?")


def why_no_number(value: object) -> str:
    """What to write instead of a value that is not a number."""
    if not isinstance(value, str):
        kinds = {bool: "true or false", list: "an array", dict: "an object"}
        return f"must be a number such as 42.5, not {kinds.get(type(value), 'that')}"
    text = value.strip()
    shown = f"is {echo(value)!r}, "
    if not text:
        return "is empty: give a number such as 42.5, or leave the event out"
    if len(text) > 200:
        return "is no number such as 42.5"
    if re.fullmatch(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?", text) and not re.fullmatch(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+", text):
        return f"{shown}which has a decimal comma: write {text.replace(',', '.')}"
    if plain := without_separators(text):
        return f"{shown}which has separators between its digits: write {plain}"
    if re.fullmatch(r"[\u2212\u2013\u2014]\s*" + _NUMBER, text):
        return f"{shown}whose minus is a typographic one: write -{text[1:].strip()}"
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", text):
        return f"{shown}which is hexadecimal: write {int(text, 16) if len(text) < 40 else 'it in decimal'}"
    if re.fullmatch(r"(?i)n/?a|null|none|nil|-+|\?|missing|#n/?a|undefined|unknown|unavailable", text):
        return f"{shown}which stands for no value: leave the event out"
    if re.fullmatch(r"(?i)true|false|yes|no|on|off", text):
        return f"{shown}which is a word: write 1 or 0"
    if re.fullmatch(r"\(\s*[\d.,]+\s*\)", text):
        return f"{shown}which is in brackets: write a minus before it, if that is meant"
    if "\0" in text:
        return f"{shown}which holds a NUL character: take it out"
    if unit := re.fullmatch(rf"({_NUMBER})\s*([^\d\s.,eE+-]\S*)|([^\d\s.,+-]+)\s*({_NUMBER})", text):
        return f"{shown}which carries a unit or sign: write {unit[1] or unit[4]} alone"
    carried = re.sub(r"^[^\d\s.,+-]{1,8}\s*(?=[\d+-])|(?<=\d)\s*[^\d\s.,+-]{1,8}$", "", text)
    if plain := without_separators(carried) or (
        carried.replace(",", ".") if re.fullmatch(r"[+-]?\d+,\d+", carried) else None
    ):
        return f"{shown}which carries a unit or sign: write {plain} alone"
    if re.fullmatch(r"\d{4}-\d\d-\d\d.*", text):
        return f"{shown}which is a time: are the columns the other way round?"
    return f"{shown}which is no number such as 42.5"


def without_separators(text: str) -> str | None:
    """1234.5 for 1,234.5 and 1.234,5; None without separators, and where they are ambiguous."""
    grouped = _GROUPED.fullmatch(text)
    if grouped is None or grouped[1] == grouped[2]:
        return None
    whole = re.sub(r"\D", "", text[: grouped.start(2) if grouped[2] else None])
    return ("-" if text[0] == "-" else "") + whole + (f".{grouped[3]}" if grouped[3] else "")
