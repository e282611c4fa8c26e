"""The short form of `twins.py`: each way of reading, some polls each."""

from __future__ import annotations

import pytest

from tests.system.fuzz.twins import FORMS, KNOWN_WEAKNESS, played


@pytest.mark.parametrize("framing", ["hdlc", "wrapper"])
@pytest.mark.parametrize("form", [form for form in FORMS if form not in KNOWN_WEAKNESS])
def test_no_value_of_the_other_meter_at_the_address(form: str, framing: str) -> None:
    read, wrong, refused = played(form, framing, 0.4, 11, 60)
    assert (wrong, read > 3, refused > 0) == (0, True, True)


def test_the_game_itself_sees_a_value_of_the_twin() -> None:
    """With values and name in different replies it slips through, as docs/dlms.md says: here the count must move."""
    wrong = sum(played("single", "hdlc", 0.4, seed, 200)[1] for seed in range(4))
    assert wrong > 0
