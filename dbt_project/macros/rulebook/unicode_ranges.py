"""Write unicode_ranges.sql: the character classes of the matching rules as explicit code point ranges.

`python dbt_project/macros/rulebook/unicode_ranges.py > dbt_project/macros/rulebook/unicode_ranges.sql`

Explicit ranges, because what `[[:alpha:]]` means depends on the server's version and collation. Run it with
Python 3.11 (Unicode 14.0), the oldest version that we support, so that nobody's result depends on theirs.
"""

import sys
import unicodedata
from collections.abc import Iterator

HEADER = """\
{{#- Unicode {version} categories as ranges for a regular expression in an E'' string, so that every server agrees.
    Generated, do not edit: python dbt_project/macros/rulebook/unicode_ranges.py > (this file).
    Characters that compatibility decomposition (NFKD) replaces never reach the classes; they count as either. -#}}

"""


def ranges(*categories: str) -> Iterator[tuple[int, int]]:
    """Runs of code points whose category starts with one of `categories`; fewest runs that NFKD text allows."""
    start = end = None
    for code in range(0x110000):
        if 0xD800 <= code <= 0xDFFF:
            member: bool | None = False
        elif unicodedata.normalize("NFKD", chr(code)) != chr(code):
            member = None  # cannot occur: joins whatever stands around it
        else:
            member = unicodedata.category(chr(code)).startswith(categories)
        if member:
            start, end = (code if start is None else start), code
        elif member is False and start is not None and end is not None:
            yield start, end
            start = end = None


def escaped(code: int) -> str:
    """A code point as E'' strings spell it."""
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def macro(name: str, *categories: str) -> str:
    """A dbt macro that returns the inside of a bracket expression."""
    spans = [escaped(a) + ("" if a == b else f"-{escaped(b)}") for a, b in ranges(*categories)]
    lines = [""]
    for span in spans:
        if len(lines[-1]) + len(span) > 64:
            lines.append("")
        lines[-1] += span
    body = "\n".join(f"    {{%- set _ = parts.append('{line}') -%}}" for line in lines)
    body = body.replace("\\", "\\\\")  # once more for the Jinja string
    return (
        f"{{% macro {name}() -%}}\n    {{%- set parts = [] -%}}\n{body}\n"
        f"    {{{{- return(parts | join('')) -}}}}\n{{%- endmacro %}}\n"
    )


def main() -> None:
    sys.stdout.write(HEADER.format(version=unicodedata.unidata_version))
    sys.stdout.write(macro("letters_and_digits", "L", "Nd") + "\n" + macro("combining_marks", "M"))


if __name__ == "__main__":
    main()
