"""The topologies: which process connects to which server, and what each is for."""

from __future__ import annotations

from .svg import Picture

__all__ = [
    "draw_failover",
    "draw_galera",
    "draw_pooler",
    "draw_processes",
    "draw_replicas",
    "draw_single",
]

_POOL = 15  # pool_size=5 and max_overflow=10, the defaults of SQLAlchemy


class _Box:
    """A rectangle with a title and lines of text; gives the points for arrows."""

    def __init__(
        self, picture: Picture, x: float, y: float, width: float, *lines: str, kind: str
    ) -> None:
        height = 14 + 17 * len(lines)
        picture.rect(x, y, width, height, kind)
        for number, line in enumerate(lines):
            look = "b" if number == 0 else ""
            picture.text(x + width / 2, y + 20 + 17 * number, line, look, "middle")
        self.top = (x + width / 2, y)
        self.bottom = (x + width / 2, y + height)
        self.left = (x, y + height / 2)
        self.right = (x + width, y + height / 2)
        self.y = y + height

    def below(self, offset: float) -> tuple[float, float]:
        """A point of the lower edge, *offset* to the right of its middle."""
        return self.bottom[0] + offset, self.bottom[1]

    def above(self, offset: float) -> tuple[float, float]:
        return self.top[0] + offset, self.top[1]


def draw_single() -> str:
    picture = Picture(
        "One process, one server",
        f"An application process with a pool of at most {_POOL} connections to one"
        " database server",
    )
    app = _Box(
        picture, 90, 40, 220, "application", f"pool: 0 to {_POOL} connections",
        kind="blues",
    )  # fmt: skip
    server = _Box(
        picture, 90, 150, 220, "PostgreSQL", "reads and writes", kind="greens"
    )
    picture.path([(200, 10), app.top])
    picture.text(210, 26, "requests", "soft")
    picture.path([app.bottom, server.top])
    picture.text(210, 122, "one for each open unit", "soft")
    return picture.render(server.y + 12)


def draw_processes() -> str:
    hosts, workers = 2, 2
    total = hosts * workers * _POOL
    picture = Picture(
        "Several processes on several hosts",
        f"{hosts} hosts with {workers} worker processes each; each process has a pool"
        f" of {_POOL}, and the server sees up to {total} connections",
    )
    picture.text(200, 22, "load balancer", "b", "middle")
    server = _Box(
        picture, 90, 210, 220, "PostgreSQL", f"{hosts} x {workers} x {_POOL} = {total}"
        " connections", kind="greens",
    )  # fmt: skip
    for host in range(hosts):
        x = 12 + 192 * host
        picture.rect(x, 58, 184, 96, "box")
        picture.text(x + 10, 76, f"host {host + 1}", "b")
        for worker in range(workers):
            left = x + 8 + 86 * worker
            process = _Box(
                picture, left, 86, 82, f"worker {worker + 1}", f"pool {_POOL}",
                kind="blues",
            )  # fmt: skip
            picture.path([process.bottom, server.above((left - 158) / 3)])
        picture.path([(200, 30), (x + 92, 56)])
    return picture.render(server.y + 12)


def draw_replicas() -> str:
    picture = Picture(
        "A primary and two replicas",
        "Units that may write go to the primary, read-only units to a replica that has"
        " what this client has written; the primary streams its log to the replicas",
    )
    app = _Box(
        picture, 60, 40, 280, "application", "a pool for each server", kind="blues"
    )
    picture.path([(140, 8), app.above(-60)])
    picture.path([app.above(20), (220, 8)])
    picture.text(132, 26, "request, token", "soft", "end")
    picture.text(228, 26, "response, newer token", "soft")
    primary = _Box(picture, 12, 172, 116, "primary", "writes", kind="greens")
    first = _Box(picture, 152, 172, 110, "replica 1", "reads", kind="blues")
    second = _Box(picture, 278, 172, 110, "replica 2", "reads", kind="blues")
    picture.path([app.below(-110), primary.above(20)])
    picture.path([app.below(10), first.top])
    picture.path([app.below(110), second.above(-20)])
    picture.text(12, 118, "units that may write,", "soft")
    picture.text(12, 135, "reads that can't wait", "soft")
    picture.text(222, 135, "read-only units", "soft")
    picture.path([primary.bottom, (70, 246), (207, 246), first.bottom], "thin to")
    picture.path([(207, 246), (333, 246), second.bottom], "thin to")
    picture.text(200, 264, "the primary's log (WAL), some milliseconds late", "soft",
                 "middle")  # fmt: skip
    return picture.render(276)


def draw_failover() -> str:
    picture = Picture(
        "The primary is lost and a replica promoted",
        "Before: units go to the primary. It dies: units that have not sent COMMIT run"
        " again or fail, a COMMIT in doubt is looked up on the new primary. After: the"
        " old connections are discarded and units go to the promoted replica",
    )
    left, right = 132, 388
    moments = (left + 74, left + 140)
    for x, words in ((moments[0], "killed"), (moments[1], "promoted")):
        picture.path([(x, 30), (x, 262)], "thin")
        picture.text(x, 22, words, "soft", "middle")
    for y, name, parts in (
        (40, "server 1", (("primary", left, moments[0], "greens"),)),
        (
            76,
            "server 2",
            (
                ("replica", left, moments[1], "blues"),
                ("primary", moments[1], right, "greens"),
            ),
        ),
    ):
        picture.text(12, y + 18, name, "b")
        for words, start, end, kind in parts:
            picture.rect(start, y, end - start - 3, 26, kind, 4)
            picture.text((start + end) / 2, y + 18, words, "", "middle")
    picture.text(moments[0] + 6, 58, "lost", "red")
    rows = (
        ("reads", (("go on, on replicas", left, right, "blues"),)),
        (
            "units",
            (
                ("commit", left, moments[0], "greens"),
                ("retry", moments[0], moments[1], "box thin"),
                ("commit", moments[1], right, "greens"),
            ),
        ),
        (
            "COMMIT sent,",
            (
                ("in doubt", moments[0], moments[1], "reds"),
                ("looked up there", moments[1], right, "box"),
            ),
        ),
        (
            "old connections",
            (("discarded with their pool", moments[0], right, "box thin"),),
        ),
    )
    for number, (name, bars) in enumerate(rows):
        y = 124 + 34 * number
        picture.text(12, y + 17, name)
        for words, start, end, kind in bars:
            picture.rect(start, y, end - start - 3, 24, kind, 4)
            picture.text((start + end) / 2, y + 17, words, "", "middle")
    picture.text(12, 124 + 34 * 2 + 31, "no answer", "soft")
    picture.path([(left, 272), (right, 272)])
    picture.text(right, 290, "time", "soft", "end")
    return picture.render(298)


def draw_pooler() -> str:
    processes, servers = 4, 3
    clients = processes * _POOL
    picture = Picture(
        "PgBouncer between the processes and the server",
        f"{processes} processes with up to {clients} connections to PgBouncer, which"
        f" has {servers} to the server and gives one to a client for each transaction",
    )
    pooler = _Box(
        picture, 70, 128, 260, "PgBouncer", "a server connection for a", "transaction",
        kind="box",
    )  # fmt: skip
    server = _Box(picture, 110, 256, 180, "PostgreSQL", kind="greens")
    for process in range(processes):
        x = 12 + 96 * process
        worker = _Box(
            picture, x, 14, 88, f"worker {process + 1}", f"pool {_POOL}", kind="blues"
        )
        for shift in (-12, 0, 12):
            end = pooler.above((process - 1.5) * 56 + shift)
            picture.path([worker.below(shift), end], "")
    picture.text(12, 120, f"up to {clients}", "soft")
    for connection in range(servers):
        shift = 60 * (connection - 1)
        picture.path([pooler.below(shift), server.above(shift)], "to")
    picture.text(12, 226, f"{servers} connections", "soft")
    return picture.render(server.y + 12)


def draw_galera() -> str:
    picture = Picture(
        "A MariaDB Galera cluster of three nodes",
        "Each node takes writes; at COMMIT they certify that no other node has changed"
        " the same rows; a lost node is left out after some seconds",
    )
    app = _Box(
        picture, 60, 14, 280, "application", "one node at a time, another on loss",
        kind="blues",
    )  # fmt: skip
    nodes = [
        _Box(picture, 12 + 132 * n, 134, 112, f"node {n + 1}", words, kind=kind)
        for n, (words, kind) in enumerate(
            (("writes", "greens"), ("writes", "greens"), ("lost", "reds"))
        )
    ]
    picture.path([app.below(-90), nodes[0].above(10)])
    picture.path([app.bottom, nodes[1].top], "thin to")
    picture.path([app.below(90), nodes[2].above(-10)], "thin")
    picture.text(12, 104, "COMMIT", "sql")
    picture.path([nodes[0].right, nodes[1].left])
    picture.path([nodes[1].right, nodes[2].left], "thin")
    picture.text(12, 206, "at COMMIT the nodes certify the rows: a conflict", "soft")
    picture.text(12, 224, "is error 1213; with attempts the unit is retried", "soft")
    return picture.render(236)
