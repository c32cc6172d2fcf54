"""Nodes and their Redis: is it there, how fast is it, what does it cost."""

from typing import Final

from deploy.grafana.frame import Frame, Section, nodes, restarts
from deploy.grafana.panels import BAD, GOOD, About, Column, Panel, Query, figure, graph, heat, listing, states
from deploy.grafana.promql import NODE, NODES, mean, or_zero, quantile, rates, ratio, summed
from deploy.grafana.promql import heat as filling

UID: Final = "gateway-redis"
ENGINES: Final = NODES._replace(witness="gateway_redis_commands_total")
"""Nodes whose broker is Redis."""
_TRIPS: Final = "gateway_redis_round_trip_seconds"
_ACCEPTED: Final = "gateway_publications_accepted_total"
_INTERRUPTED: Final = "gateway_interrupted_seconds_total"


def redis() -> Frame:
    """Return the dashboard."""
    return Frame(
        UID,
        "Gateway: Redis",
        "Redis as the nodes see it, for nodes with `broker.type` redis. Panels without data: no such node can be "
        "scraped.",
        [nodes()],
        [
            Section("Is it there", _there()),
            Section("How fast is it", _speed()),
            Section("How much is it asked", _volume()),
            Section("What a publication costs", _costs()),
            Section("What went wrong", _errors()),
        ],
        [restarts(NODES.targets)],
    )


def _there() -> list[Panel]:
    return [
        figure(
            "Nodes without broker",
            About(
                shows="Nodes that can be scraped and say that their broker does not work.",
                normal="0.",
                otherwise="publishing and subscribing answer error 100 there; clients stay connected. "
                "`/readyz?verbose` of the node names the trouble.",
            ),
            Query(
                f"sum(1 - ({NODES.of('gateway_broker_up')} and on(instance) {ENGINES.of(ENGINES.witness)}))", "without"
            ),
            unit="none",
            height=8,
            limits=((None, GOOD), (1, BAD)),
        ),
        states(
            "Broker by node",
            About(
                shows="Whether each node can use its broker.",
                normal="up throughout.",
                otherwise="all nodes at once: Redis or its network. One: that node's link.",
            ),
            Query(f"min by (instance) ({NODES.of('gateway_broker_up')})", "{{instance}}"),
            words={"1": ("up", GOOD), "0": ("down", BAD)},
            width=10,
        ),
        graph(
            "Canary: age",
            About(
                shows="How long ago each node's message to itself came back through Redis.",
                normal="a saw of a few seconds.",
                otherwise="a line that climbs while connections are up: a link that is deaf, or a server that became "
                "a replica.",
            ),
            Query(f"max by (instance) ({NODES.of('gateway_broker_canary_age_seconds')})", "{{instance}}"),
            unit="s",
            width=10,
            limit=10,
        ),
        graph(
            "Canary: round trip",
            About(
                shows="How long that message was on its way, by the way that publications take.",
                normal="some milliseconds.",
                otherwise="see the round trips of the links: `publish` and `subscribe` are its two halves.",
            ),
            Query(f"max by (instance) ({NODES.of('gateway_broker_canary_round_trip_seconds')})", "{{instance}}"),
            unit="s",
            limit=0.5,
        ),
        graph(
            "Connections made",
            About(
                shows="Connections to Redis that came up in the last interval, by link; all but a node's first are "
                "reconnects.",
                normal="none, but three for each node that starts.",
                otherwise="Redis closes them (restart, `client kill`, output buffer limits), or the network does.",
            ),
            Query(_risen("gateway_redis_connects_total", "link"), "{{link}}"),
            unit="none",
        ),
        graph(
            "Interruptions",
            About(
                shows="For how long subscribing links had been lost that came back in the last interval, by node.",
                normal="0.",
                otherwise="what was published meanwhile is read from histories; where there are none, clients are "
                "told.",
            ),
            Query(_risen(_INTERRUPTED, NODE), "{{instance}}"),
            unit="s",
        ),
    ]


def _risen(name: str, *by: str) -> str:
    return or_zero(ENGINES, summed(f"increase({NODES.of(name)}[$__rate_interval])", *by), *by)


def _speed() -> list[Panel]:
    return [
        heat(
            "Round trips of all links",
            About(
                shows="From sending to the answer: batches of commands, PINGs of the watchdog, and pipelines of reads.",
                normal="below 2.5 ms in one data centre.",
                otherwise="a second band further up: something slow in Redis (`SLOWLOG GET`), or a fork for a "
                "snapshot.",
            ),
            filling(ENGINES, _TRIPS),
            width=8,
        ),
        graph(
            "Round trips by link, p50 and p99",
            About(
                shows="`publish`: one batch of commands at a time. `subscribe`: the watchdog's PINGs. `read`: "
                "pipelines of history and presence.",
                normal="below 5 ms; `publish` is part of what every publisher waits for.",
                otherwise="all slow: Redis, its machine or the network. Only `publish`: long scripts, see "
                "`history_size` and `statistics_window`. All of one node: that node's event loop.",
            ),
            Query(quantile(ENGINES, 0.5, _TRIPS, "link"), "{{link}} p50"),
            Query(quantile(ENGINES, 0.99, _TRIPS, "link"), "{{link}} p99"),
            unit="s",
            width=8,
            limit=0.1,
        ),
        graph(
            "Mean round trip by node",
            About(
                shows="The mean over all links, by node.",
                normal="all alike.",
                otherwise="one node apart: its network to Redis, or its CPU.",
            ),
            Query(mean(ENGINES, _TRIPS, NODE), "{{instance}}"),
            unit="s",
        ),
    ]


def _volume() -> list[Panel]:
    return [
        graph(
            "Commands and writes",
            About(
                shows="Commands on publishing connections, and the writes that carried them, a second.",
                normal="fewer writes than commands under load: what one turn of the event loop brings goes out at "
                "once.",
                otherwise="compare with the CPU of Redis, which has one core for commands; scripts count for several.",
            ),
            Query(rates(ENGINES, "gateway_redis_commands_total"), "commands"),
            Query(rates(ENGINES, "gateway_redis_batches_total"), "writes"),
            unit="cps",
            width=6,
        ),
        graph(
            "Messages",
            About(
                shows="Messages of channels that nodes received over pub/sub, and commands that changed what they "
                "listen to.",
                normal="one message for each publication and node with subscribers.",
                otherwise="many SUBSCRIBEs: clients come and go; names are put together, so that is cheap.",
            ),
            Query(rates(ENGINES, "gateway_redis_messages_total"), "messages"),
            Query(rates(ENGINES, "gateway_redis_subscribe_commands_total"), "SUBSCRIBE and UNSUBSCRIBE"),
            unit="cps",
            width=6,
        ),
        graph(
            "Reads",
            About(
                shows="Requests for history and presence, and the pipelines that carried them, a second.",
                normal="many requests in few pipelines while crowds come back.",
                otherwise="many all the time: clients that ask for history or presence in a loop.",
            ),
            Query(rates(ENGINES, "gateway_redis_reads_total"), "requests"),
            Query(rates(ENGINES, "gateway_redis_read_batches_total"), "pipelines"),
            unit="cps",
            width=6,
        ),
        graph(
            "Bytes",
            About(
                shows="Bytes to and from Redis on the publishing and subscribing connections.",
                normal="received is sent times the nodes with subscribers.",
                otherwise="compare with the network of Redis' machine: it carries the sum of all nodes.",
            ),
            Query(rates(ENGINES, "gateway_redis_sent_bytes_total"), "sent"),
            Query(rates(ENGINES, "gateway_redis_received_bytes_total"), "received"),
            unit="Bps",
            width=6,
        ),
    ]


def _costs() -> list[Panel]:
    def each(name: str) -> str:
        return ratio(ENGINES, rates(ENGINES, name), rates(NODES, _ACCEPTED))

    return [
        graph(
            "Commands for each publication",
            About(
                shows="Commands on publishing connections for each publication; blank while nothing is published.",
                normal="1, and more where little is published, since canaries, announcements and probes count, too.",
                otherwise="above 2 under load: presence with many joins and leaves.",
            ),
            Query(each("gateway_redis_commands_total"), "commands"),
            unit="none",
            width=6,
        ),
        graph(
            "Messages for each publication",
            About(
                shows="Messages that nodes received for each publication.",
                normal="at most the number of nodes, and some more for announcements.",
                otherwise="near 0: nobody subscribes to what is published.",
            ),
            Query(each("gateway_redis_messages_total"), "messages"),
            unit="none",
            width=6,
        ),
        graph(
            "Bytes sent for each publication",
            About(
                shows="Bytes written to Redis for each publication.",
                normal="the publication, the name of its channel, and what a script needs beside.",
                otherwise="much more than your publications weigh: joins and leaves, or large channel names.",
            ),
            Query(each("gateway_redis_sent_bytes_total"), "bytes"),
            unit="bytes",
            width=6,
        ),
        graph(
            "Commands in a write",
            About(
                shows="How many commands one write carried on average.",
                normal="1 when little goes on, and more the busier it is.",
                otherwise="1 under heavy load: each turn of the event loop brings one publication, so commands can't "
                "be put together.",
            ),
            Query(
                ratio(
                    ENGINES,
                    rates(ENGINES, "gateway_redis_commands_total"),
                    rates(ENGINES, "gateway_redis_batches_total"),
                ),
                "commands",
            ),
            unit="none",
            width=6,
        ),
    ]


def _errors() -> list[Panel]:
    return [
        graph(
            "Trouble by link and kind",
            About(
                shows="What went wrong between nodes and Redis, a second.",
                normal="none.",
                otherwise="`unreachable`: address, port, password. `lost`, `silent`: the network, or Redis hangs. "
                "`overdue`: too slow. `overflow`: more waited than `redis.queue_max_size`. `down`: asked while there "
                "was no link. `refused`: an error reply, see the log.",
            ),
            Query(rates(ENGINES, "gateway_redis_errors_total", "link", "kind"), "{{link}} {{kind}}"),
            unit="cps",
            width=12,
            stacked=True,
        ),
        graph(
            "Refused, repeated, not understood",
            About(
                shows="Commands answered with an error, scripts sent again because Redis had forgotten them, and "
                "messages that no gateway has written, a second.",
                normal="none; scripts once after Redis was restarted.",
                otherwise="refused: rights of the ACL user, or memory (`maxmemory`). Not understood: somebody else "
                "uses the same `redis.prefix`.",
            ),
            Query(rates(ENGINES, "gateway_redis_refused_total"), "refused"),
            Query(rates(ENGINES, "gateway_redis_repeated_total"), "repeated"),
            Query(rates(ENGINES, "gateway_redis_undecodable_total"), "not understood"),
            unit="cps",
            width=12,
        ),
        listing(
            "Since the start",
            About(
                shows="Trouble of each kind that the chosen nodes have counted since they were started: also what "
                "happened once and is too rare for a rate.",
                normal="no row with a number above 0.",
                otherwise="the log of the node has a line for each, with the time.",
            ),
            [Column("Count", _trouble_so_far(), "none", ((None, GOOD), (1, BAD)))],
            keys={"instance": "Node", "link": "Link", "kind": "Kind"},
            height=6,
        ),
    ]


def _trouble_so_far() -> str:
    errors = summed(NODES.of("gateway_redis_errors_total"), "instance", "link", "kind")
    return or_zero(ENGINES, errors, "kind")
