import asyncio

import pytest

from gateway.client.buffer import ITEM_BYTES, Buffer
from gateway.client.errors import ClientError, InvalidArgumentError


async def test_items_come_out_in_their_order() -> None:
    buffer = Buffer[int](10_000)
    assert [buffer.offer(number) for number in range(3)] == [True, True, True]
    assert [await buffer.take() for _ in range(3)] == [0, 1, 2]


async def test_an_item_wakes_who_waits() -> None:
    buffer = Buffer[str](10_000)
    taking = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    buffer.offer("a")
    buffer.offer("b")
    assert (await taking, await buffer.take()) == ("a", "b")


async def test_a_cancelled_taker_loses_nothing() -> None:
    buffer = Buffer[str](10_000)
    taking = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    buffer.offer("a")
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await buffer.take() == "a"


@pytest.mark.parametrize(("limit", "payload", "taken"), [(4 * ITEM_BYTES, 0, 4), (1000, 100, 2), (1, 5000, 1)])
async def test_it_is_bounded_in_bytes_and_an_empty_one_takes_anything(limit: int, payload: int, taken: int) -> None:
    buffer = Buffer[int](limit)
    assert [buffer.offer(number, payload) for number in range(6)] == [True] * taken + [False] * (6 - taken)
    assert await buffer.take() == 0
    assert buffer.offer(9, payload)


async def test_two_tasks_do_not_take_at_the_same_time() -> None:
    buffer = Buffer[int](1000)
    taking = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    with pytest.raises(InvalidArgumentError, match="another task"):
        await buffer.take()
    buffer.offer(1)
    assert await taking == 1


@pytest.mark.parametrize("error", [None, ClientError("over", to_do="go")])
@pytest.mark.parametrize("is_emptied", [True, False])
async def test_the_end_comes_behind_what_is_kept_each_time_again(
    error: ClientError | None, *, is_emptied: bool
) -> None:
    buffer = Buffer[str](1000)
    buffer.offer("a")
    buffer.end("last", error, is_emptied=is_emptied)
    assert len(buffer) == (1 if is_emptied else 2)
    assert [await buffer.take() for _ in range(len(buffer))] == (["last"] if is_emptied else ["a", "last"])
    for _ in range(2):
        with pytest.raises(StopAsyncIteration if error is None else ClientError):
            await buffer.take()


async def test_the_end_wakes_who_waits() -> None:
    buffer = Buffer[str](1000)
    taking = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    buffer.end("last", None, is_emptied=False)
    assert await taking == "last"
