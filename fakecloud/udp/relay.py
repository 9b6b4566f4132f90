"""The process that relays datagrams between clients and targets. Nothing big is imported here.

It is started with a bound unix socket as descriptor 3, on which it takes orders, and, to take
over from another relay, a connection to that one as descriptor 4. Everything else, the sockets
of clients too, comes with orders: it needs no privilege and opens no file.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import socket
import sys

from fakecloud.udp import clock, handover, orders, wire
from fakecloud.udp.sessions import Address, Endpoint, Session, Table
from fakecloud.udp.targets import NEVER

CONTROL, PREDECESSOR = 3, 4
EVENTS = 256
BURST = 64
"""So many datagrams of one port are taken before the others have their turn."""
FEW = 4
ANSWER_BYTES = 1024 * 1024
"""So much of a target's answers may wait; some answer with hundreds of datagrams at once."""
LARGEST = 65536
_UNREACHABLE = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)


class Relay:
    """All datagrams of a load balancer, in one thread."""

    def __init__(self, control: socket.socket, version: str, epoch: str) -> None:
        """Take orders on `control`, which must be bound and not listen yet."""
        self.table = Table(self._release)
        self.version = version
        self.epoch = epoch
        self.over = False
        self._epoll = select.epoll()
        self._control = control
        self._orders: dict[int, orders.Conversation] = {}
        self._doors: dict[int, tuple[socket.socket, Endpoint]] = {}
        self._sessions: dict[int, Session] = {}
        self._buffer = bytearray(LARGEST)
        self._view = memoryview(self._buffer)

    def take_over(self, connection: socket.socket) -> None:
        """Continue what another relay did. Raises: OSError, ValueError; then nothing is ours."""
        given = handover.take(connection, self.table, clock.monotonic())
        self.epoch = given.epoch
        self.open_doors([socket.socket(fileno=file) for file in given.doors])
        for session, file in given.files.items():
            self._use(session, socket.socket(fileno=file))

    def listen(self) -> None:
        """Begin to take orders: it says that the relay serves."""
        self._control.listen(orders.MOST)
        self._control.setblocking(False)
        self._epoll.register(self._control, select.EPOLLIN)

    def run(self) -> None:
        """Serve until everything was handed over."""
        while not self.over:
            due_at, now = self.table.due_at, clock.monotonic()
            if due_at <= now:
                self.table.expire(now)
                due_at = self.table.due_at
            pause = -1 if due_at == NEVER else max(0.0, due_at - now)
            self.turn(pause)

    def turn(self, pause: float) -> None:
        """Wait for datagrams or orders, `pause` seconds at most, and serve them."""
        events = self._epoll.poll(pause, EVENTS)
        now = clock.monotonic()
        sessions, doors = self._sessions, self._doors
        # Asking until nothing is left costs one call too many: too much where all are busy.
        most = BURST if len(events) <= FEW else 1
        for descriptor, _ in events:
            session = sessions.get(descriptor)
            if session is not None:
                self._answer(session, most, now)
            elif descriptor in doors:
                door, endpoint = doors[descriptor]
                self._take(door, endpoint, now)
            else:
                self._obey(descriptor)

    def configure(self, config: wire.Config, doors: list[socket.socket]) -> None:
        """Become what `config` says; `doors` are the sockets of its addresses and ports.

        Those that are here already needn't come again, and do no harm.
        Raises: OSError, ValueError; then nothing has changed.
        """
        binds = set(config.binds())
        known = {endpoint.bind for _, endpoint in self._doors.values()}
        new = {door.getsockname()[:2]: door for door in doors}
        if binds - known - new.keys():
            raise ValueError("an address and port came without its socket")
        self.table.configure(config, clock.monotonic())
        for bind in new.keys() - (binds - known):
            new.pop(bind).close()
        self.open_doors(list(new.values()))
        for descriptor, (door, endpoint) in list(self._doors.items()):
            if endpoint.bind not in binds:
                # The server may hold the socket too: closing alone would not end the events.
                self._epoll.unregister(descriptor)
                del self._doors[descriptor]
                door.close()

    def open_doors(self, doors: list[socket.socket]) -> None:
        """Take datagrams from these sockets, which are bound to addresses of the table."""
        for door in doors:
            endpoint = self.table.endpoints[door.getsockname()[:2]]
            door.setblocking(False)
            endpoint.reply = door.sendto
            self._doors[door.fileno()] = door, endpoint
            self._epoll.register(door, select.EPOLLIN)

    def doors(self) -> list[int]:
        """Return the descriptors of the sockets that take datagrams from clients."""
        return list(self._doors)

    def _take(self, door: socket.socket, endpoint: Endpoint, now: float) -> None:
        """Pass on what clients sent."""
        receive, buffer, view = door.recvfrom_into, self._buffer, self._view
        sessions, listener = endpoint.sessions, endpoint.listener
        for _ in range(BURST):
            try:
                size, client = receive(buffer)
            except BlockingIOError:
                return
            except OSError:
                listener.failed += 1
                continue
            session = sessions.get(client)
            if session is None or not session.settled:
                session = self._route(endpoint, client, now)
                if session is None:
                    continue
            session.seen_at = now
            try:
                session.send(view[:size])
            except OSError as error:
                session = self._send_elsewhere(session, size, error, now)
                if session is None:
                    continue
            target = session.target
            listener.datagrams_in += 1
            listener.bytes_in += size
            target.datagrams_in += 1
            target.bytes_in += size

    def _answer(self, session: Session, most: int, now: float) -> None:
        """Pass on what a target sent, `most` datagrams of it."""
        receive, reply, buffer, view = (
            session.receive,
            session.endpoint.reply,
            self._buffer,
            self._view,
        )
        listener, target, client = session.listener, session.target, session.client
        for _ in range(most):
            try:
                size = receive(buffer)
            except BlockingIOError:
                return
            except OSError:
                self.table.refuse(session)
                return
            session.answered_at = now
            try:
                reply(view[:size], client)
            except OSError:  # the client's address can't be reached, or its buffer is full
                listener.failed += 1
                continue
            listener.datagrams_out += 1
            listener.bytes_out += size
            target.datagrams_out += 1
            target.bytes_out += size

    def _route(self, endpoint: Endpoint, client: Address, now: float) -> Session | None:
        session = self.table.route(endpoint, client, now)
        if session is None or session.descriptor >= 0:
            return session
        ip, port = session.target.address
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        try:
            upstream = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ANSWER_BYTES)
            upstream.connect((ip, port))
        except OSError:  # no descriptor left, no route
            self.table.close(session)
            session.listener.failed += 1
            return None
        self._use(session, upstream)
        return session

    def _send_elsewhere(
        self, session: Session, size: int, error: OSError, now: float
    ) -> Session | None:
        """Send a datagram again that a target's host refuses, once; None: it is dropped.

        What the kernel tells is the fate of an earlier datagram; this one was not sent.
        """
        if error.errno not in _UNREACHABLE:
            session.listener.failed += 1
            return None
        self.table.refuse(session)
        other = self._route(session.endpoint, session.client, now)
        if other is None:
            return None
        try:
            other.send(self._view[:size])
        except OSError:
            other.listener.failed += 1
            return None
        return other

    def _use(self, session: Session, upstream: socket.socket) -> None:
        upstream.setblocking(False)
        session.descriptor = upstream.fileno()
        session.send, session.receive = upstream.send, upstream.recv_into
        session.hang_up = upstream.close
        self._sessions[session.descriptor] = session
        self._epoll.register(session.descriptor, select.EPOLLIN)

    def _release(self, session: Session) -> None:
        if session.descriptor >= 0:
            del self._sessions[session.descriptor]
            session.hang_up()

    def _obey(self, descriptor: int) -> None:
        if descriptor == self._control.fileno():
            self._admit()
        elif descriptor in self._orders:
            conversation = self._orders[descriptor]
            try:
                order = conversation.read()
            except OSError:
                order = ("gone", "", [])
            if order is not None:
                self._epoll.unregister(descriptor)
                del self._orders[descriptor]
                self._carry_out(conversation, *order)

    def _carry_out(
        self, conversation: orders.Conversation, order: str, text: str, files: list[int]
    ) -> None:
        if order == orders.HANDOVER:
            self._hand_over(conversation)
            return
        doors = [socket.socket(fileno=file) for file in files]
        try:
            answer = self._do(order, text, doors)
        except (OSError, ValueError) as error:
            for door in doors:
                door.close()
            answer = f"error {error}\n"
        conversation.answer(answer, self.doors() if order == "sockets" else [])

    def _do(self, order: str, text: str, doors: list[socket.socket]) -> str:
        match order:
            case "hello":
                return "ok\n" + orders.hello(self.version, self.epoch)
            case "config":
                return "ok\n" + wire.render(self.table.config)
            case "stats":
                return "ok\n" + "".join(orders.statistics(self.table))
            case "sockets":
                return "ok\n"
            case "apply":
                self.configure(wire.parse(text), doors)
                say(f"applied {len(self.table.config.listeners)} listeners")
                return "ok\n"
            case _:
                raise ValueError(f"no such order: {order[:20]!r}")

    def _hand_over(self, conversation: orders.Conversation) -> None:
        try:
            handover.give(conversation.connection, self.table, self.epoch, self.doors())
        except OSError as error:
            say(f"not handed over: {error}")
        else:
            self.over = True
            say(f"handed over {self.table.count} sessions")
        conversation.close()

    def _admit(self) -> None:
        try:
            connection, _ = self._control.accept()
        except OSError:  # gone already, or no descriptor left
            return
        if len(self._orders) >= orders.MOST:
            connection.close()
            return
        connection.setblocking(False)
        self._orders[connection.fileno()] = orders.Conversation(connection)
        self._epoll.register(connection, select.EPOLLIN)


def say(text: str) -> None:
    """Write a line to the log."""
    sys.stderr.write(f"{clock.stamp()} {text}\n")
    sys.stderr.flush()


def become(user: str) -> None:
    """Give up what isn't needed; `user` is uid:gid or -, to stay who we are."""
    if user != "-":
        uid, gid = map(int, user.split(":"))
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getuid() != 0:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # it starts nothing


def main(arguments: list[str]) -> None:
    """Run a relay: directory, import path, version, epoch, user, and whether to take over."""
    _, _, version, epoch, user, takes_over = arguments
    become(user)
    gc.disable()  # sessions make no cycles, and a collection would hold up thousands of them
    relay = Relay(socket.socket(fileno=CONTROL), version, epoch)
    if takes_over == "yes":
        with socket.socket(fileno=PREDECESSOR) as predecessor:
            relay.take_over(predecessor)
        say(f"took over {relay.table.count} sessions")
    relay.listen()
    say(f"relay started, version {version}")
    relay.run()
