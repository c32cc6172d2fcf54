from loadtest.histogram import Histogram
from loadtest.tally import Counted, Felt, Outage, Outages, Tally


def test_a_second_is_handed_over_once() -> None:
    tally = Tally()
    tally.published += 2
    tally.delivered += 1
    tally.latency.record(500)
    tally.errors["x"] += 1
    counted = tally.take()
    assert (counted.published, counted.delivered, counted.errors) == (2, 1, {"x": 1})
    assert Histogram.decode(counted.latency).count == 1
    assert counted.acknowledgement == ""
    assert tally.take() == Counted()


def test_an_outage_lasts_while_anybody_is_without() -> None:
    outages = Outages()
    outages.lose(Felt.CLIENTS, 1, 100)
    outages.lose(Felt.CLIENTS, 2, 110)
    outages.lose(Felt.CLIENTS, 1, 115)
    outages.regain(1, 120, Felt.CLIENTS, Felt.BREAKS)
    outages.lose(Felt.PUBLISHING, 7, 125)
    outages.regain(2, 130, Felt.CLIENTS)
    outages.lose(Felt.CLIENTS, 3, 200)
    assert outages.all() == [
        Outage(Felt.CLIENTS, 100, 130, 2),
        Outage(Felt.CLIENTS, 200, None, 1),
        Outage(Felt.PUBLISHING, 125, None, 1),
    ]


def test_who_leaves_is_without_nothing() -> None:
    outages = Outages()
    outages.lose(Felt.CLIENTS, 1, 100)
    outages.forget(1, 150)
    assert outages.all() == [Outage(Felt.CLIENTS, 100, 150, 1)]
