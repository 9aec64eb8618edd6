"""A rank that dies ends the job, with one line that says which.

MPI itself may wait for a dead rank for ever, and a launcher that cleans up does not say whose death it was. So each
rank starts a small helper process, this file, which does nothing but wait at the end of a pipe: the operating system
closes the pipe when the rank ends, however it ends. A rank that is through says goodbye first. All helpers are
connected to that of rank 0, the hub, since only the first death is the cause (the launcher kills the others after it):

    helper      its rank is gone without a goodbye            → tells the hub
    hub         the first death, or a helper's line is cut    → prints the line, tells all helpers
    helper      told so                                       → gives its rank ``GRACE`` seconds, then kills it

A helper that cannot reach the hub prints its own line. A machine that falls silent is noticed by TCP's keep-alive.
"""

import contextlib
import json
import os
import re
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time

GRACE = 3.0  # seconds that the launcher has to clean up by itself
CONNECT = 3.0  # seconds to reach the hub
SILENCE = (2, 2, 2)  # keep-alive: after 2 s without a word, every 2 s, 2 times


class Watch:
    """This rank's end of the pipe to its helper."""

    def __init__(self, comm, host):
        hub = comm.rank == 0
        output = subprocess.PIPE if hub else subprocess.DEVNULL
        self.helper = subprocess.Popen(
            [sys.executable, "-I", __file__], stdin=subprocess.PIPE, stdout=output, start_new_session=True
        )
        where = None
        if hub:
            with self.helper.stdout as answer:
                where = {"port": int(answer.readline()), "addresses": addresses(), "host": host}
            where["token"] = secrets.token_hex(16)
        where = comm.bcast(where)
        self._tell(rank=comm.rank, size=comm.size, pid=os.getpid(), own_host=host, **where)
        comm.Barrier()  # nobody computes before every helper knows its rank

    def _tell(self, **message):
        with contextlib.suppress(OSError):  # a helper that was killed helps no more
            self.helper.stdin.write(json.dumps(message).encode() + b"\n")
            self.helper.stdin.flush()

    def hint(self, text, bar=False):
        """What the line of a death should end in; ``bar``: a progress bar may stand where it begins."""
        self._tell(hint=text, start="\n" if bar else "")

    def bye(self):
        """The rank is through: its end is no death."""
        self._tell(bye=True)
        with contextlib.suppress(OSError):
            self.helper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.helper.wait(GRACE)


def addresses() -> list[str]:
    """The IPv4 addresses of this machine, the loopback last."""
    found = []
    with contextlib.suppress(OSError):
        with open("/proc/net/fib_trie", encoding="ascii") as table:
            found += re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", table.read())
    with contextlib.suppress(OSError):
        found += socket.gethostbyname_ex(socket.gethostname())[2]
    return sorted({*found, "127.0.0.1"}, key=lambda address: address.startswith("127."))


# ------------------------------------------------------------------------------------- the helper process


class Helper:
    """What runs in the process of this file: ``run`` ends with it."""

    def __init__(self):
        self.selector, self.buffers = selectors.DefaultSelector(), {}
        self.me, self.hub = {}, None  # the rank's own description; a socket to the hub, or None
        self.hint = self.begin = ""  # what a line of a death ends and begins in
        self.clients = {}  # of the hub: socket -> rank
        self.parent, self.told, self.kill_at = True, False, None

    def run(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends when its rank does
        listener = socket.create_server(("", 0), backlog=4096)
        print(listener.getsockname()[1], flush=True)
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ, self.from_rank)
        while not self.me:
            self.turn()
        if self.me["rank"] == 0:
            self.selector.register(listener, selectors.EVENT_READ, self.accept)
        else:
            listener.close()
            self.connect()
        while self.parent or not self.told:
            self.turn()

    def turn(self):
        wait = None if self.kill_at is None else max(0.0, self.kill_at - time.monotonic())
        for key, _ in self.selector.select(wait):
            key.data(key.fileobj)
        if self.kill_at is not None and time.monotonic() >= self.kill_at:
            if self.parent:
                with contextlib.suppress(OSError):
                    os.kill(self.me["pid"], signal.SIGKILL)
            raise SystemExit

    def lines(self, source, data):
        """Whole lines of what came, as JSON; a broken one ends the conversation."""
        *lines, self.buffers[source] = (self.buffers.get(source, b"") + data).split(b"\n")
        return [json.loads(line) for line in lines]

    # -------------------------------------------------------------------------------------- from the own rank

    def from_rank(self, pipe):
        data = os.read(pipe, 65536)
        for message in self.lines("rank", data):
            if "bye" in message:
                self.tell_all({"bye": True})
                if self.hub is not None:
                    self.send(self.hub, {"bye": True})
                raise SystemExit
            if "hint" in message:
                self.hint, self.begin = message["hint"], message["start"]
            else:
                self.me = message
        if not data:
            self.selector.unregister(pipe)
            self.parent = False
            if not self.me:
                raise SystemExit
            self.death(self.me["rank"], self.me["own_host"], self.me["pid"])

    def death(self, rank, host, pid):
        """A rank has gone: tell the hub, or as the hub everybody."""
        if self.told:
            return
        self.told = True
        if self.hub is not None:
            self.send(self.hub, {"died": [rank, host, pid]})
        else:
            which = f"rank {rank}" + (f" (process {pid} on {host})" if pid else f" on {host}")
            os.write(2, f"{self.begin}numnet: error: {which} died, and the job with it{self.hint}\n".encode())
            self.tell_all({"stop": True})
        self.end_soon()

    def end_soon(self):
        if self.kill_at is None:
            self.kill_at = time.monotonic() + GRACE

    # -------------------------------------------------------------------------------------- between helpers

    def send(self, peer, message):
        with contextlib.suppress(OSError):
            peer.sendall(json.dumps(message).encode() + b"\n")

    def tell_all(self, message):
        for client in self.clients:
            self.send(client, message)

    def connect(self):
        addresses = self.me["addresses"]
        if self.me["own_host"] == self.me["host"]:
            addresses = ["127.0.0.1", *addresses]
        until = time.monotonic() + CONNECT
        for address in addresses:
            with contextlib.suppress(OSError):
                wait = max(0.1, min(1.0, until - time.monotonic()))
                hub = socket.create_connection((address, self.me["port"]), wait)
                hub.settimeout(1.0)
                self.send(hub, {key: self.me[key] for key in ("token", "rank", "own_host", "pid")})
                if hub.recv(3) != b"{}\n":  # somebody else's port
                    hub.close()
                    continue
                self.hub = hub
                keep_alive(hub)
                self.selector.register(hub, selectors.EVENT_READ, self.from_hub)
                return

    def from_hub(self, hub):
        try:
            data = hub.recv(65536)
            messages = self.lines("hub", data)
        except (OSError, ValueError):
            data, messages = b"", []
        for message in messages:
            if "bye" in message:
                self.hang_up(hub)
                return
            if "stop" in message:
                self.told = True
                self.end_soon()
        if not data:
            self.hang_up(hub)
            if self.me["rank"] == 1 and not self.told:  # nobody else can say it
                self.death(0, self.me["host"], None)
            self.told = True
            self.end_soon()

    def hang_up(self, hub):
        self.selector.unregister(hub)
        hub.close()
        self.hub = None

    def accept(self, listener):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            client, _ = listener.accept()
            client.settimeout(1.0)
            hello = json.loads(client.makefile("rb").readline(4096))
            if hello["token"] != self.me["token"]:
                client.close()
                return
            client.sendall(b"{}\n")
            keep_alive(client)
            self.clients[client] = hello
            self.selector.register(client, selectors.EVENT_READ, self.from_client)

    def from_client(self, client):
        who = self.clients[client]
        try:
            data = client.recv(65536)
            messages = self.lines(client, data)
        except (OSError, ValueError):
            data, messages = b"", []
        for message in messages:
            if "died" in message:
                self.death(*message["died"])
            if "bye" in message:
                who["bye"] = True
        if not data:
            self.selector.unregister(client)
            del self.clients[client]
            if not who.get("bye"):
                self.death(who["rank"], who["own_host"], who["pid"])


def keep_alive(line):
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), SILENCE):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


if __name__ == "__main__":
    Helper().run()
