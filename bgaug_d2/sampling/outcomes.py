"""What a training sample shows, and why: one table from replies and rules to counted names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bgaug_d2.painting.prepare import SKIP_REASONS
from bgaug_d2.worker.protocol import Reply

# What a sample shows ("hit": a painted background; all others: the original), and why.
OUTCOMES = (
    "original",  # the policy drew the original
    "hit",
    "miss",  # not painted yet
    "timeout",  # waited, and the picture did not come in time
    "unavailable",  # no painting process answers, or all are busy
    "rejected",  # painted, and refused by the quality rules
    *SKIP_REASONS,  # rules by which an image is never painted
    "error",  # a fault in annotations, image, cache or painting process; the log has the first ones
)


@dataclass(frozen=True)
class ReplyMeaning:
    """What a reply of a painting process means to those who can ask.

    Attributes:
        waited: Outcome of a draw that waited for its picture (``on_miss=wait``).
        asked: Outcome of a draw that only asked for it (``on_miss=original``).
        looked_ahead: What the look-ahead counts.
        ask_again: Whether the look-ahead asks again after a pause.
    """

    waited: str
    asked: str
    looked_ahead: str
    ask_again: bool


# By the reply's status. Who waits gets no ``queued``, who only asks gets an answer at once: a
# ``timeout`` there means that nobody answers.
REPLIES = {
    "done": ReplyMeaning("hit", "miss", "cached", ask_again=False),
    "queued": ReplyMeaning("unavailable", "miss", "queued", ask_again=False),
    "busy": ReplyMeaning("unavailable", "miss", "busy", ask_again=True),
    "timeout": ReplyMeaning("timeout", "unavailable", "timeout", ask_again=True),
    "unavailable": ReplyMeaning("unavailable", "unavailable", "unavailable", ask_again=True),
    "rejected": ReplyMeaning("rejected", "rejected", "rejected", ask_again=False),
    "error": ReplyMeaning("error", "error", "error", ask_again=False),
}


def outcome_of_reply(reply: Reply, waited: bool) -> str:
    """The outcome of a draw that asked for its picture, and ``waited`` for it or not."""
    if reply.status == "rejected":
        return outcome_of_rejection(reply.reason)
    meaning = REPLIES[reply.status]
    return meaning.waited if waited else meaning.asked


def outcome_of_rejection(reason: str) -> str:
    """The outcome of a draw whose picture is rejected for ``reason``."""
    return reason if reason in SKIP_REASONS else "rejected"


def outcome_sentence(outcomes: Mapping[str, int]) -> str:
    """For example ``of 80 samples: 41 original, 30 hit, 9 miss``."""
    counted = [f"{count} {name}" for name, count in outcomes.items() if count]
    return f"of {sum(outcomes.values())} samples: {', '.join(counted) or 'none'}"
