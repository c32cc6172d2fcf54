"""One node's clients: who they are, what they ask for, what they are sent."""

from deploy.grafana.panels import About, Panel, Query, graph
from deploy.grafana.promql import NODES, levels, quantile, rates


def connections() -> list[Panel]:
    """Return the panels of who comes and goes."""
    return [
        graph(
            "Connections by kind",
            About(
                shows="Open connections by transport, protocol and what the client calls itself; "
                "`metrics.client_names` has the names that are told apart.",
                normal="what your clients are.",
                otherwise="one kind that vanishes after a release is a client that can't connect any more.",
            ),
            Query(
                levels(NODES, "gateway_connections_by_client", "transport", "protocol", "name", "version"),
                "{{transport}} {{protocol}} {{name}} {{version}}",
            ),
            unit="short",
            stacked=True,
        ),
        graph(
            "Accepted and ended",
            About(
                shows="Connections a second: upgraded, known by a token or as anonymous, ended by the client or the "
                "network, ended by the server.",
                normal="as many come as go.",
                otherwise="accepted without authenticated: tokens are bad, or clients do not send them. Many of each: "
                "clients reconnect in a loop, see the codes.",
            ),
            Query(rates(NODES, "gateway_connections_accepted_total"), "accepted"),
            Query(rates(NODES, "gateway_authenticated_total"), "authenticated"),
            Query(rates(NODES, "gateway_closes_by_peer_total"), "ended by peer"),
            Query(rates(NODES, "gateway_disconnects_total"), "ended by server"),
            unit="cps",
        ),
        graph(
            "Refused by reason",
            About(
                shows="Upgrade requests that were refused, a second.",
                normal="none, or strangers' scans.",
                otherwise="a limit: raise it or add nodes. An origin: name it in `client.allowed_origins`.",
            ),
            Query(rates(NODES, "gateway_connections_refused_total", "reason"), "{{reason}}"),
            unit="cps",
            stacked=True,
        ),
        graph(
            "Ended by the server, by code",
            About(
                shows="Connections that the node closed, by the code that clients were told, a second.",
                normal="3001 while it drains, else few.",
                otherwise="3008: too slow a reader. 3012: no pong. 3500: a bad token. 3502: never authenticated. "
                "3501: not this protocol.",
            ),
            Query(rates(NODES, "gateway_disconnects_total", "code"), "{{code}}"),
            unit="cps",
            stacked=True,
        ),
        graph(
            "Tokens refused, limits reached",
            About(
                shows="Tokens that were not good by cause, key sets that could not be fetched, and limits, a second.",
                normal="near 0.",
                otherwise="`gateway token check` says what is wrong with a token. A key set that can't be fetched: "
                "ask its server from this machine.",
            ),
            Query(rates(NODES, "gateway_token_failures_total", "cause"), "token {{cause}}"),
            Query(rates(NODES, "gateway_key_set_failures_total"), "key set"),
            Query(rates(NODES, "gateway_limit_hits_total", "limit"), "limit {{limit}}"),
            unit="cps",
        ),
        graph(
            "Ping to pong",
            About(
                shows="From a ping to its pong: the network to clients and back, and how awake they are.",
                normal="the round trip of your users' networks; mobile ones have seconds.",
                otherwise="if all get slower at once, it is this side: see the lag and the network.",
            ),
            Query(quantile(NODES, 0.5, "gateway_ping_pong_seconds"), "p50"),
            Query(quantile(NODES, 0.99, "gateway_ping_pong_seconds"), "p99"),
            unit="s",
        ),
    ]


def commands() -> list[Panel]:
    """Return the panels of what clients and backends ask for."""
    return [
        graph(
            "Commands by method",
            About(
                shows="Commands of clients, a second.",
                normal="connects and subscribes come with connections, publishes as your application does.",
                otherwise="many subscribes without connects: clients that subscribe again and again; see the error "
                "replies.",
            ),
            Query(rates(NODES, "gateway_commands_total", "method"), "{{method}}"),
            unit="cps",
            stacked=True,
        ),
        graph(
            "How long commands take, p99",
            About(
                shows="From taking a command to its answer. Of publishes one in sixteen is timed.",
                normal="some milliseconds where Redis is asked, microseconds else.",
                otherwise="compare with Redis' round trips. `rpc` is your own handler.",
            ),
            Query(quantile(NODES, 0.99, "gateway_command_duration_seconds", "method"), "{{method}}"),
            unit="s",
        ),
        graph(
            "Error replies",
            About(
                shows="Commands that were answered with an error, by method and code, a second.",
                normal="few.",
                otherwise="100: the broker is away, or a fault of the gateway: the log has it. Others are the "
                "client's.",
            ),
            Query(rates(NODES, "gateway_errors_total", "method", "code"), "{{method}} {{code}}"),
            unit="cps",
            stacked=True,
        ),
        graph(
            "Server API: calls and errors",
            About(
                shows="Calls of backends by method, and those that were not carried out, a second.",
                normal="no errors.",
                otherwise="401 and 403: the key, or its scope. Codes of three digits from 100 on: as for clients.",
            ),
            Query(rates(NODES, "gateway_api_calls_total", "method"), "{{method}}"),
            Query(rates(NODES, "gateway_api_errors_total", "method", "code"), "error {{method}} {{code}}"),
            unit="cps",
        ),
        graph(
            "Server API: how long calls take, p99",
            About(
                shows="From a request's body to its answer.",
                normal="a few milliseconds; what all nodes are asked for takes as long as the slowest.",
                otherwise="see the lag, and Redis' round trips.",
            ),
            Query(quantile(NODES, 0.99, "gateway_api_duration_seconds", "method"), "{{method}}"),
            unit="s",
        ),
        graph(
            "HTTP requests",
            About(
                shows="Requests on both ports by path and status, a second; upgrades are not among them.",
                normal="scrapes and health checks.",
                otherwise="5xx on the internal port is a node that is not ready, or a fault: the log has it.",
            ),
            Query(
                rates(NODES, "gateway_http_requests_total", "port", "path", "status"), "{{port}} {{path}} {{status}}"
            ),
            unit="reqps",
        ),
    ]


def writing() -> list[Panel]:
    """Return the panels of what goes out to clients."""
    return [
        graph(
            "Bytes that wait",
            About(
                shows="Bytes in the outboxes of open connections, which their clients have not read yet.",
                normal="near 0.",
                otherwise="clients read too slowly, or the network is full; who has more than `client.queue_max_size` "
                "is cut.",
            ),
            Query(levels(NODES, "gateway_outbox_bytes"), "waiting"),
            unit="bytes",
        ),
        graph(
            "Connections for which bytes wait",
            About(
                shows="Open connections with something in their outbox.",
                normal="few.",
                otherwise="many at once: the network of this node. Few, and they stay: single slow clients.",
            ),
            Query(levels(NODES, "gateway_connections_congested"), "congested"),
            Query(
                rates(NODES, "gateway_outboxes_lost_total", "reason"), "ended with bytes unread, a second: {{reason}}"
            ),
            unit="short",
        ),
        graph(
            "Fan-out",
            About(
                shows="Encoding and writing, for all subscribers of this node, what one turn of the event loop "
                "brought.",
                normal="1 to 4 µs for each subscriber.",
                otherwise="it is the largest piece of the lag where channels have many thousand subscribers: spread "
                "them over more nodes.",
            ),
            Query(quantile(NODES, 0.5, "gateway_fanout_duration_seconds"), "p50"),
            Query(quantile(NODES, 0.99, "gateway_fanout_duration_seconds"), "p99"),
            unit="s",
        ),
        graph(
            "Messages",
            About(
                shows="What was handed to transports by kind, and what came from clients, a second.",
                normal="publications are most of it.",
                otherwise="many events: joins and leaves of large channels, see `join_leave`.",
            ),
            Query(rates(NODES, "gateway_messages_sent_total", "kind"), "sent: {{kind}}"),
            Query(rates(NODES, "gateway_messages_received_total"), "received"),
            unit="cps",
            width=12,
        ),
        graph(
            "Bytes",
            About(
                shows="Bytes from and to clients, framing included, before TLS.",
                normal="what your publications weigh, times their subscribers.",
                otherwise="compare with the machine's network; `websocket.compression` makes large texts smaller, for "
                "CPU.",
            ),
            Query(rates(NODES, "gateway_sent_bytes_total"), "sent"),
            Query(rates(NODES, "gateway_received_bytes_total"), "received"),
            unit="Bps",
            width=12,
        ),
    ]
