"""What texts that people write have in common."""

import re

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)
"""A decimal number, without inf, nan and the underscores that `float` would take."""
