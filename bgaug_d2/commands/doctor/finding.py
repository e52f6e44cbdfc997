"""What one check of ``bgaug doctor`` finds."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, MISSING = "ok", "warning", "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: What was looked at, one or two words.
        status: ``ok``, ``warning`` or ``missing``.
        fact: What is there.
        remedy: What to do; empty where all is well.
        required: Whether training needs it; a missing one makes the exit status 1.
    """

    topic: str
    status: str
    fact: str
    remedy: str = ""
    required: bool = False
