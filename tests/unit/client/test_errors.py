import inspect

import pytest

from gateway.client import errors
from gateway.client.errors import ClientError, PoolTimeoutError, ReplyTimeoutError, UnansweredError, advice
from gateway.protocol import codes


def test_all_errors_are_one_tree() -> None:
    found = [each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__]
    assert len(found) > 10
    assert [each for each in found if not issubclass(each, ClientError)] == []
    assert [each for each in found if not each.__name__.endswith("Error")] == []


@pytest.mark.parametrize("kind", [ReplyTimeoutError, PoolTimeoutError])
def test_what_took_too_long_is_a_timeout_in_pythons_words(kind: type[ClientError]) -> None:
    with pytest.raises(TimeoutError):
        raise kind("late", to_do="wait")


def test_what_was_cut_off_is_a_connection_error_in_pythons_words() -> None:
    with pytest.raises(ConnectionError):
        raise UnansweredError("lost", to_do="ask again")


def test_every_final_code_has_advice_of_its_own() -> None:
    final = [each.code for each in codes.ERRORS] + [each.code for each in codes.DISCONNECTS if each.code >= 3500]
    without = [code for code in final if advice(code) == advice(0)]
    assert without == [113, 3502]  # paging is not done here, and a client that connects is not stale


def test_a_sentence_holds_all_there_is_to_say() -> None:
    error = ClientError("publish: permission denied", to_do="ask for it", channel="a:b", code=103)
    assert str(error) == "publish: permission denied ('a:b') [103]: ask for it"
    assert str(ClientError("not connected", to_do="connect")) == "not connected: connect"
