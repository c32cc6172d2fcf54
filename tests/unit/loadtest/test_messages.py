import asyncio

from loadtest.messages import Begin, Outcome, answers, orders, pack, receive
from loadtest.tally import Felt, Outage
from loadtest.watching import Counts, Gap, Why


async def test_messages_come_out_as_they_went_in_however_they_are_cut() -> None:
    stream = asyncio.StreamReader()
    outcome = Outcome(
        counts=Counts(delivered=3),
        gaps=[Gap("c", 1, 2, 3, 4, 5, Why.TOLD)],
        unrestored=0,
        outages=[Outage(Felt.CLIENTS, 1, None, 2)],
        endings=1,
    )
    for byte in pack(outcome) + pack(outcome):
        stream.feed_data(bytes([byte]))
    stream.feed_eof()
    assert [await receive(stream, answers), await receive(stream, answers)] == [outcome, outcome]
    assert await receive(stream, answers) is None


async def test_a_pipe_that_ends_within_a_message_ends() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(pack(Begin(5))[:-1])
    stream.feed_eof()
    assert await receive(stream, orders) is None
