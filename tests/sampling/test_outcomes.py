"""The table of outcomes: it covers every reply, and names nothing that is not counted."""

from __future__ import annotations

import pytest

from bgaug_d2.painting.prepare import SKIP_REASONS
from bgaug_d2.sampling.outcomes import (
    OUTCOMES,
    REPLIES,
    outcome_of_rejection,
    outcome_of_reply,
    outcome_sentence,
)
from bgaug_d2.worker.protocol import STATUSES, Reply


def test_every_reply_has_a_meaning() -> None:
    assert set(REPLIES) == set(STATUSES)


@pytest.mark.parametrize("waited", [True, False])
@pytest.mark.parametrize("status", STATUSES)
def test_every_reply_is_counted_by_a_known_name(status: str, waited: bool) -> None:
    for reason in ("", "flat", *SKIP_REASONS):
        assert outcome_of_reply(Reply(status, reason), waited) in OUTCOMES


def test_rules_are_told_from_rejected_pictures() -> None:
    assert [outcome_of_rejection(each) for each in SKIP_REASONS] == list(SKIP_REASONS)
    assert outcome_of_rejection("flat") == "rejected"
    assert outcome_of_reply(Reply("rejected", "crowd"), waited=False) == "crowd"


def test_the_sentence_leaves_out_what_did_not_happen() -> None:
    assert outcome_sentence({"hit": 2, "miss": 0, "error": 1}) == "of 3 samples: 2 hit, 1 error"
