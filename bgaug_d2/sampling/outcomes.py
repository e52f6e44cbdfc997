"""What a training sample shows, and why: the names that are counted."""

from __future__ import annotations

# What a sample shows ("hit": a painted background; all others: the original), and why.
OUTCOMES = (
    "original",  # the policy drew the original
    "hit",
    "miss",  # not painted yet
    "timeout",  # waited for in vain
    "unavailable",  # no painting process answers, or all are busy
    "rejected",  # painted, and refused by the quality rules
    "no_objects",  # rules by which an image is never painted
    "small_background",
    "crowd",
    "error",  # a fault in annotations, image, cache or painting process; the log has the first ones
)


_RULES = ("no_objects", "small_background", "crowd")


def outcome_of_rejection(reason: str) -> str:
    """The outcome of a draw whose picture is rejected for ``reason``."""
    return reason if reason in _RULES else "rejected"
