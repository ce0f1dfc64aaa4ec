"""What texts that people write have in common."""

import re

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)
"""A decimal number, without inf, nan and the underscores that `float` would take."""


def with_article(noun: str) -> str:
    """A noun with its article, as it is spelt.

    >>> [with_article(noun) for noun in ("prompt", "inpaint")]
    ['a prompt', 'an inpaint']
    """
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"


def size(count: int) -> str:
    """Bytes as people say them, in powers of 1000.

    >>> [size(n) for n in (512, 20_480, 143_000_000, 4_265_000_000)]
    ['512 bytes', '20 kB', '143 MB', '4.3 GB']
    """
    if count < 1000:
        return f"{count} bytes"
    for unit, factor in (("kB", 1e3), ("MB", 1e6)):
        if count < 999.5 * factor:
            return f"{count / factor:.0f} {unit}"
    return f"{count / 1e9:.1f} GB"
