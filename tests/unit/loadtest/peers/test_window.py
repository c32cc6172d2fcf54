import itertools

from hypothesis import given
from hypothesis import strategies as st

from loadtest.peers.window import Window


def test_the_next_publication_goes_when_one_has_reached_everybody() -> None:
    window = Window(messages=4, in_flight=2, subscribers=3)
    assert (window.advance(), window.next_due) == (2, 3)
    window.deliveries = 2
    assert window.advance() == 0
    window.deliveries = 3
    assert (window.advance(), window.next_due) == (1, 6)
    window.deliveries = 7
    assert (window.advance(), window.next_due) == (1, 12)
    assert not window.is_complete
    window.deliveries = 12
    assert (window.advance(), window.is_complete) == (0, True)


@given(st.integers(1, 40), st.integers(1, 10), st.integers(1, 10), st.lists(st.integers(1, 30), min_size=1, max_size=9))
def test_no_more_than_the_window_is_under_way_and_everything_is_sent_once(
    messages: int, in_flight: int, subscribers: int, batches: list[int]
) -> None:
    window = Window(messages=messages, in_flight=in_flight, subscribers=subscribers)
    sent = window.advance()
    for batch in itertools.cycle(batches):
        window.deliveries += min(batch, sent * subscribers - window.deliveries)
        if window.deliveries >= window.next_due:
            sent += window.advance()
        assert sent == window.sent <= messages
        assert sent - window.deliveries // subscribers <= in_flight
        if window.is_complete:
            break
    assert sent == messages
