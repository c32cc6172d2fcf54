import pytest

from loadtest.peers.frames import BINARY, CLOSE, PING, TEXT, Frame, client_frame, split_frames, upgrade_request
from tests.support.frames import frame


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_of_every_length_are_split_wherever_they_are_cut(size: int) -> None:
    payload = b"x" * size
    unmasked = bytearray(client_frame(TEXT, payload))
    header = len(unmasked) - size
    assert bytes(unmasked[header - 4 : header]) == bytes(4)
    del unmasked[header - 4 : header]
    unmasked[1] &= 0x7F
    whole = bytes(unmasked)

    assert split_frames(whole * 2 + whole[:1]) == ([Frame(TEXT, payload)] * 2, whole[:1])
    for cut in {1, 2, header - 5, len(whole) - 1} - {0, len(whole)}:
        assert split_frames(whole[:cut]) == ([], whole[:cut])


def test_what_a_client_sends_is_what_the_other_helper_of_the_tests_makes_with_a_mask_of_zeros() -> None:
    for opcode in (TEXT, BINARY, CLOSE, PING):
        sent = client_frame(opcode, b"abc")
        assert (sent[0], sent[1]) == (0x80 | opcode, 0x80 | 3)
        assert len(sent) == len(frame(opcode, b"abc"))


def test_the_request_for_a_websocket_names_host_and_origin() -> None:
    request = upgrade_request("/a?b=c", host="127.0.0.1:80").decode()
    assert request.startswith("GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:80\r\n")
    assert "Origin: http://127.0.0.1:80\r\n\r\n" in request
