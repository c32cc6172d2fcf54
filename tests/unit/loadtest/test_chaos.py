import pytest

from loadtest.chaos import Action, ChaosError, Done, Verb, check, parse, recoveries
from loadtest.tally import Felt, Outage

S = 1_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kill:node1@10s", Action(Verb.KILL, "node1", 10.0, 0.0)),
        ("stop:redis@1.5s+250ms", Action(Verb.STOP, "redis", 1.5, 0.25)),
        ("stop:redis@1m", Action(Verb.STOP, "redis", 60.0, 2.0)),
        ("cut:node-2@3", Action(Verb.CUT, "node-2", 3.0, 1.0)),
        ("restart:node1@3s+1s", Action(Verb.RESTART, "node1", 3.0, 1.0)),
        ("run:failover@0s", Action(Verb.RUN, "failover", 0.0, 0.0)),
    ],
)
def test_an_action_is_read(text: str, expected: Action) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["", "kill", "kill:node1", "kill@3s", "kill:node1@", "kill:node1@3h", "kill:a b@3s"])
def test_what_is_no_action_is_refused(text: str) -> None:
    with pytest.raises(ChaosError, match="is no chaos: write VERB:NAME@AT"):
        parse(text)


def test_an_unknown_verb_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ChaosError, match="there is no 'explode'; there are kill, stop, drain"):
        parse("explode:node1@3s")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kill:node9@3s", "there is no 'node9' to kill; there are node1, redis"),
        ("cut:redis@3s", "there is no 'redis' to cut; there are node1"),
        ("run:failover@3s", "there is nothing that it could be done to"),
    ],
)
def test_only_what_was_named_can_be_hit(text: str, sentence: str) -> None:
    with pytest.raises(ChaosError, match=sentence):
        check([parse(text)], servers=["node1", "redis"], links=["node1"], commands=[])


def test_a_recovery_lasts_until_the_last_who_was_hit_is_back() -> None:
    done = [Done(10 * S, "kill:node1", "process 1"), Done(20 * S, "stop:redis", "for 2 s")]
    outages = [
        Outage(Felt.CLIENTS, 10 * S, 12 * S, 30),
        Outage(Felt.CLIENTS, 11 * S, 13 * S, 20),
        Outage(Felt.BREAKS, 10 * S, 19 * S, 5),
        Outage(Felt.PUBLISHING, 21 * S, None, 1),
    ]
    first, second = recoveries(done, outages, begin_us=4 * S)
    assert (first.at_s, first.action, first.clients_hit) == (6.0, "kill:node1", 50)
    assert (first.clients_recovered_after_s, first.publishing_recovered_after_s) == (3.0, 0.0)
    assert (second.clients_hit, second.clients_recovered_after_s, second.publishing_recovered_after_s) == (0, 0.0, None)


def test_breaks_by_the_scenario_are_told_apart() -> None:
    outages = [Outage(Felt.CLIENTS, 10 * S, 19 * S, 5), Outage(Felt.BREAKS, 10 * S, 12 * S, 30)]
    (storm,) = recoveries([Done(10 * S, "storm", "")], outages, begin_us=0, felt=Felt.BREAKS)
    assert (storm.clients_hit, storm.clients_recovered_after_s) == (30, 2.0)
