"""Each build is uploaded once to an account, whichever of its agents want it, and no account sees too many uploads."""

from __future__ import annotations

import pytest

from coordinator.core import uploads
from coordinator.core.events import UploadClaim, UploadsClaimed
from coordinator.core.model import SECOND_US, Account, AgentId, DeviceId, Upload, UploadKey
from coordinator.core.step import SendUploads
from coordinator.core.uploads import Uploads
from tests.core.lab import AgentOnPaper, Lab
from tests.core.test_accounts import TWO, slots
from tests.core.test_restart import RestartingLab

KEY = UploadKey(TWO.name, "a" * 64)
ADDRESS = "bs://1"


def claim(agent: AgentOnPaper, turn: int = 0, *, key: UploadKey = KEY, url: str = "") -> None:
    agent.lab.handle(UploadsClaimed(session=agent.session, claims=(UploadClaim(key=key, turn=turn, url=url),)))


def withdraw(agent: AgentOnPaper) -> None:
    agent.lab.handle(UploadsClaimed(session=agent.session, claims=()))


def told(agent: AgentOnPaper) -> tuple[str | None, int, str]:
    """Who has the claim, which turn the agent has, and where the build is, as the agent was told last."""
    sends = [one for one in agent.lab.sends if isinstance(one, SendUploads) and one.session == agent.session]
    (status,) = sends[-1].statuses
    return status.holder, status.turn, status.upload.url if status.upload is not None else ""


def sharers(agent: AgentOnPaper) -> list[tuple[tuple[str, int], ...]]:
    return [one.sharers for one in agent.lab.sends if isinstance(one, SendUploads) and one.session == agent.session]


def two_agents(lab: Lab) -> tuple[AgentOnPaper, AgentOnPaper]:
    return lab.connect("one", *slots("one", 2)), lab.connect("two", *slots("two", 2))


def test_first_agent_uploads_and_the_other_waits_and_is_told_where_the_build_is() -> None:
    one, two = two_agents(Lab())
    claim(one)
    claim(two)
    assert (told(one), told(two)) == (("one", 0, ""), ("one", -1, ""))
    claim(one, 1)
    assert told(one) == ("one", 1, "")
    claim(two, 1)
    assert told(two) == ("one", -1, ""), "it has no leave to upload, whatever it asks for"
    claim(one, url=ADDRESS)
    assert told(two) == ("two", 0, ADDRESS), "it asked to upload before it was told where the build is"
    withdraw(two)
    claim(two)
    assert told(two)[:2] == ("two", 0)


def test_agents_that_wait_are_told_of_the_address_at_once() -> None:
    lab = Lab()
    one, two = two_agents(lab)
    three = lab.connect("three", *slots("three", 2))
    claim(one, 1)
    claim(two)
    claim(three)
    claim(one, url=ADDRESS)
    assert told(two) == ("two", 0, ADDRESS)
    assert told(three) == ("two", -1, ADDRESS)


def test_claim_that_is_given_up_goes_to_the_next_who_knows_of_no_address() -> None:
    lab = RestartingLab()
    one, two = two_agents(lab)
    claim(one, 1)
    claim(two)
    assert [upload.agent for upload in lab.records.uploads.values()] == ["one"]
    withdraw(one)
    assert told(two) == ("two", 0, "")
    assert not lab.records.uploads


ANOTHER = Account(name="another@cloud", sessions=1)


def test_claims_to_other_builds_and_other_accounts_are_others() -> None:
    lab = Lab()
    one = lab.connect("one", *slots("one", 2))
    two = lab.connect("two", *slots("two", 1), *slots("two-too", 1, ANOTHER))
    claim(one, 1)
    claim(two, 1, key=UploadKey(KEY.account, "b" * 64))
    assert told(two)[:2] == ("two", 1)
    claim(two, 1, key=UploadKey(ANOTHER.name, KEY.digest))
    assert told(two)[:2] == ("two", 1)


def test_agent_has_no_say_in_an_account_that_it_does_not_serve() -> None:
    lab = Lab()
    stranger, one = lab.connect("stranger", *slots("stranger", 1, ANOTHER)), lab.connect("one", *slots("one", 2))
    claim(stranger, 1, url="bs://of-a-stranger")
    claim(stranger, 1)
    claim(one, 1)
    assert told(one) == ("one", 1, "")


def test_account_sees_no_more_than_five_uploads_a_minute_from_all_its_agents() -> None:
    lab = Lab()
    one, two = two_agents(lab)
    for turn in range(1, 5):
        claim(one, turn)
    other = UploadKey(KEY.account, "b" * 64)
    claim(two, 1, key=other)
    assert (told(one)[1], told(two)[1]) == (4, 1)
    claim(two, 2, key=other)
    assert told(two)[1] == 1
    lab.pass_time(59)
    assert told(two)[1] == 1
    assert lab.scheduler.next_deadline() == uploads.SPAN_US
    lab.pass_time(1)
    assert told(two)[1] == 2


def test_claim_of_an_agent_whose_stream_was_lost_is_kept_as_long_as_a_lease() -> None:
    lab = Lab()
    one, two = two_agents(lab)
    claim(one, 1)
    claim(two)
    one.lose()
    ttl_s = lab.settings.lease_ttl_us // SECOND_US
    lab.pass_time(ttl_s - 1)
    assert told(two) == ("one", -1, "")
    lab.pass_time(1)
    assert told(two) == ("two", 0, "")


def test_agent_that_comes_back_in_time_goes_on_with_its_upload() -> None:
    lab = Lab()
    one, two = two_agents(lab)
    claim(one, 1)
    claim(two)
    one.lose()
    again = lab.connect("one", *slots("one", 2))
    claim(again, 1)
    lab.pass_time(100)
    assert (told(again)[:2], told(two)[:2]) == (("one", 1), ("one", -1))


def test_claim_that_an_agent_began_while_it_was_away_has_no_leave_from_the_one_before() -> None:
    lab = Lab()
    one = lab.connect("one", *slots("one", 2))
    for turn in (1, 2, 3):
        claim(one, turn)
    assert told(one)[1] == 3
    one.lose()
    again = lab.connect("one", *slots("one", 2))
    another = UploadClaim(key=KEY, turn=0, number=1)
    lab.handle(UploadsClaimed(session=again.session, claims=(another,)))
    assert told(again) == ("one", 0, "")


@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
def test_claim_of_an_agent_that_ended_goes_to_the_next_at_once(boot: str) -> None:
    lab = Lab()
    one, two = two_agents(lab)
    claim(one, 1)
    claim(two)
    one.lose(goodbye=boot == "boot-1")
    if boot == "boot-2":
        lab.connect("one", *slots("one", 2), boot=boot)
    assert told(two) == ("two", 0, "")


def test_agent_that_comes_first_after_a_restart_does_not_get_the_claim_of_one_that_uploads() -> None:
    lab = RestartingLab()
    one, two = two_agents(lab)
    claim(one, 1)
    claim(two)
    lab.restart()
    two = lab.connect("two", *slots("two", 2))
    claim(two)
    assert told(two) == ("one", -1, "")
    one = lab.connect("one", *slots("one", 2))
    claim(one, 1)
    assert told(one)[:2] == ("one", 1)
    claim(one, url=ADDRESS)
    assert told(two) == ("two", 0, ADDRESS)


def test_agent_that_asked_to_upload_before_a_restart_hears_first_where_another_has_brought_the_build() -> None:
    lab = RestartingLab()
    one, two = two_agents(lab)
    claim(two)
    lab.restart()  # when it had looked in vain, and before it had leave to upload
    one = lab.connect("one", *slots("one", 2))
    claim(one)
    two = lab.connect("two", *slots("two", 2))
    claim(two, 1)
    claim(one, 1)
    claim(one, url=ADDRESS)
    assert told(two) == ("two", 0, ADDRESS)
    claim(two, 1, url=ADDRESS)
    lab.pass_time(uploads.HEED_US // SECOND_US)
    assert [(one.agent, one.url) for one in lab.records.uploads.values()] == [("two", ADDRESS)]


def test_agent_that_does_not_take_the_address_that_it_was_told_gets_its_turn_soon() -> None:
    lab = Lab()
    one, two = two_agents(lab)
    claim(one, 1)
    claim(two, 1)
    claim(one, url=ADDRESS)
    heed_s = uploads.HEED_US // SECOND_US
    assert lab.scheduler.next_deadline() == lab.mono_us + uploads.HEED_US
    lab.pass_time(heed_s - 1)
    assert told(two) == ("two", 0, ADDRESS)
    lab.pass_time(1)
    assert told(two) == ("two", 1, "")
    claim(two, 2)
    assert told(two) == ("two", 2, ""), "it has looked itself meanwhile"


def test_address_outlives_a_restart() -> None:
    lab = RestartingLab()
    one, _ = two_agents(lab)
    claim(one, 1)
    claim(one, url=ADDRESS)
    lab.restart()
    two = lab.connect("two", *slots("two", 2))
    claim(two)
    assert told(two) == ("two", 0, ADDRESS)
    claim(two, 1)
    assert told(two) == ("two", 1, ""), "it is uploaded anew, for it is there no more"


def test_agents_of_an_account_are_told_with_how_many_they_share_it() -> None:
    lab = Lab()
    one = lab.connect("one", *slots("one", 2))
    assert sharers(one) == []
    two = lab.connect("two", *slots("two", 2))
    assert sharers(one) == sharers(two) == [((TWO.name, 2),)]
    two.lose()
    assert sharers(one)[-1] == ()


def test_devices_of_the_lab_cost_no_word_about_uploads() -> None:
    lab = Lab()
    lab.connect("one")
    lab.connect("two")
    assert not [one for one in lab.sends if isinstance(one, SendUploads)]


def test_slot_says_which_upload_it_waits_for_while_it_is_under_way() -> None:
    lab = Lab()
    one, two = two_agents(lab)
    waiting = UploadClaim(key=KEY, devices=(DeviceId("slot-1@two"),))
    lab.handle(UploadsClaimed(session=two.session, claims=(waiting,)))
    assert lab.scheduler.ledger.uploads.awaited_on(DeviceId("slot-1@two")) is None
    withdraw(two)
    claim(one, 1)
    lab.handle(UploadsClaimed(session=two.session, claims=(waiting,)))
    upload = lab.scheduler.ledger.uploads.awaited_on(DeviceId("slot-1@two"))
    assert upload is not None
    assert (upload.agent, upload.begin_us) == ("one", lab.now.wall_us)
    assert lab.scheduler.ledger.uploads.awaited_on(DeviceId("slot-2@two")) is None


def test_what_was_brought_the_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "REMEMBERED", 2)
    put: list[Upload] = []
    lab = Lab()
    known = Uploads(put.append)
    for digest in ("a", "b", "c"):
        key = UploadKey("account", digest)
        known.state(AgentId("one"), (UploadClaim(key=key),), lab.now)
        known.settle(lab.now, 0)
        known.state(AgentId("one"), (UploadClaim(key=key, url=f"bs://{digest}"),), lab.now)
    assert [key.digest for key in known.known] == ["b", "c"]
    assert (put[-1].digest, put[-1].is_given_up) == ("a", True)


def test_turns_of_an_account_are_forgotten_after_their_span() -> None:
    lab = Lab()
    one = lab.connect("one", *slots("one", 1), *slots("one-too", 1, ANOTHER))
    claim(one, 1)
    withdraw(one)
    lab.mono_us += uploads.SPAN_US
    claim(one, 1, key=UploadKey(ANOTHER.name, KEY.digest))
    assert list(lab.scheduler.ledger.uploads._turns) == [ANOTHER.name]


def test_facts_that_have_nothing_to_do_with_uploads_look_at_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    one, two = two_agents(lab)
    claim(one, 1)
    claim(two)
    looked: list[object] = []
    monkeypatch.setattr(uploads, "_wanted_turn", looked.append)
    one.beat()
    assert looked == []
