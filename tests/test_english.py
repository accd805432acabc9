"""The English of docstrings, messages and pages: turns of phrase that are not used here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Regular expressions, and what to write in their place.
TURNS = {
    r"(?<!there )\bis no (?!longer\b|more\b)": "is not a",
    r"(?<!there )\bare none\b": "there are no ...",
    r"\banew\b": "again",
    r"\bheed": "respect, use",
    r"held against": "compared with",
    r"be it that": "if",
    r"\blest\b": "so that ... not",
    r"\bshall\b": "must, will",
    r"(?<![(|])\b(thereof|therein|thereby|hence|nought|withal)\b": "of it, in it, so, nothing",
    r"\b(nobody|somebody)\b": "no one, a caller, a user",
    r"for want of": "without",
    r"\b(can|may|to) be had\b": "is available",
    r"of its own accord": "by itself",
    r"\bgo(es)? by\b": "use",
    r"\b(is|are|was|were|be) told\b(?! apart)": "knows",
    r"\btold by\b": "identified by",
    r"such as are": "that are",
    r"all the same\b(?! )": "anyway",
    r"\bin silence\b": "silently",
    r"\bat hand\b": "available",
    r"\bhas not (the|a|an|any)\b": "has no",
    r"\bhas it not\b": "does it lack",
    r",? for (they|he|she|we) (are|have|is|do|does|can|may)\b": "because",
    r"\bof which (each|one|none|some)\b": "one of which",
    r"\bwhatever (becomes|fails|happens)": "if anything",
}
ENOUGH = re.compile("|".join(f"(?:{turn})" for turn in TURNS), re.IGNORECASE)


def texts() -> Iterator[Path]:
    for pattern in ("xchip/**/*.py", "README.md", ".docs/pages/**/*.md", ".github/**/*.md", "examples/*.py"):
        yield from sorted(ROOT.glob(pattern))


@pytest.mark.parametrize("path", list(texts()), ids=lambda path: str(path.relative_to(ROOT)))
def test_plain_english(path: Path) -> None:
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for match in ENOUGH.finditer(line):
            turn = next(turn for turn in TURNS if re.match(turn, match[0], re.IGNORECASE))
            found.append(f"line {number}: {match[0].strip()!r}; write {TURNS[turn]!r}")
    assert found == []
