"""The registry of connections, by client and by user."""

from gateway.domain.connections import Connections
from gateway.domain.session import Session, SessionSettings


class Connection:
    """What the registry knows of a connection: its session."""

    def __init__(self, client_id: str, user: str, session_id: str = "") -> None:
        self.session = Session(client_id, SessionSettings(), now_s=0.0, session_id=session_id)
        self.session.user = user


def test_a_connection_is_counted_from_opening_and_its_user_from_authentication() -> None:
    connections: Connections[Connection] = Connections()
    one, two, other, nobody = Connection("1", "42"), Connection("2", "42"), Connection("3", "43"), Connection("4", "")
    for connection in (one, two, other, nobody):
        connections.add(connection)
    assert (len(connections), connections.users, connections.count_of("42")) == (4, 0, 0)
    for connection in (one, two, other, nobody):
        connections.identify(connection)
        connections.identify(connection)
    assert (len(connections), connections.users) == (4, 2)
    assert [connections.count_of(user) for user in ("42", "43", "44", "")] == [2, 1, 0, 0]
    assert list(connections) == [one, two, other, nobody]


def test_a_connection_that_was_removed_leaves_nothing_behind() -> None:
    connections: Connections[Connection] = Connections()
    one, two, nobody = Connection("1", "42"), Connection("2", "42"), Connection("3", "")
    for connection in (one, two, nobody):
        connections.add(connection)
        connections.identify(connection)
    connections.remove(one)
    connections.remove(one)
    assert (len(connections), connections.users, connections.count_of("42")) == (2, 1, 1)
    connections.remove(nobody)
    connections.remove(two)
    assert (len(connections), connections.users, connections.count_of("42"), list(connections)) == (0, 0, 0, [])


def test_who_was_never_identified_takes_no_sibling_along() -> None:
    connections: Connections[Connection] = Connections()
    known, unknown = Connection("1", "42"), Connection("2", "42")
    for connection in (known, unknown):
        connections.add(connection)
    connections.identify(known)
    connections.remove(unknown)
    assert (connections.users, connections.count_of("42"), list(connections)) == (1, 1, [known])


def test_connections_may_go_while_they_are_walked() -> None:
    connections: Connections[Connection] = Connections()
    for number in range(3):
        connections.add(Connection(str(number), ""))
    for connection in connections:
        connections.remove(connection)
    assert len(connections) == 0


def test_a_connection_is_found_by_its_session_as_long_as_it_is_there() -> None:
    connections: Connections[Connection] = Connections()
    one, two, without = Connection("1", "42", "s1"), Connection("2", "42", "s2"), Connection("3", "42")
    for connection in (one, two, without):
        connections.add(connection)
    assert [connections.in_session(each) for each in ("s1", "s2", "s3", "1")] == [one, two, None, None]
    connections.remove(without)
    connections.remove(one)
    assert [connections.in_session(each) for each in ("s1", "s2")] == [None, two]
