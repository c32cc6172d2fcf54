import json

import pytest

from loadtest.peers.dialects import BARE, CENTRIFUGO, SMALLEST_PAYLOAD, SOCKET_IO, numbers, payload


@pytest.mark.parametrize("size", [SMALLEST_PAYLOAD, 100, 5000])
def test_payloads_are_json_of_the_asked_size_and_their_numbers_are_found_again(size: int) -> None:
    made = [payload(number, size=size) for number in (0, 7, 12_345_678)]
    assert [len(each) for each in made] == [size] * 3
    assert all(json.loads(each) for each in made)
    assert numbers(b"\n".join(made)) == [0, 7, 12_345_678]


def test_publications_are_what_each_protocol_wants() -> None:
    made = payload(5, size=20)
    assert BARE.publication(made) == made
    assert json.loads(CENTRIFUGO.publication(made)) == {
        "id": 3,
        "publish": {"channel": "bench", "data": json.loads(made)},
    }
    assert SOCKET_IO.publication(made).startswith(b"42")
    assert json.loads(SOCKET_IO.publication(made)[2:]) == ["publish", json.loads(made)]
