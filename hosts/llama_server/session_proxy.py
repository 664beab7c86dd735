"""Sessions by name in front of an unmodified llama-server.

    session_proxy.py --sessions DIR -- llama-server -m MODEL [options]

Starts that server on a port of its own, takes its place at the --host and --port of its options, and passes everything on to it. A request that names a session (header "X-Session: NAME", or
"session": "NAME" in its JSON) is computed in the slot that holds this session. If none does, the one that was used longest ago is
saved to DIR and the slot goes back to what DIR has under the new name. What is in the slots when the proxy is told to stop is saved too.
Requests without a name share the slots that no session needs.

    GET /sessions            names, whether they are in a slot, bytes on disk
    DELETE /sessions/NAME    forgets one
"""

import argparse
import contextlib
import dataclasses
import http.client
import http.server
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Requests that compute in a slot.
COMPUTES = re.compile(r"(/v1)?/(chat/completions|completions?|infill|responses|messages)(\?.*)?")
HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "x-session"}
START_SECONDS = 600
SUFFIX = ".slot"


class Refused(Exception):
    """A request that cannot be served: HTTP status and text."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


@dataclasses.dataclass
class Slot:
    number: int
    session: str | None = None
    is_changed: bool = False  # since it was saved
    is_busy: bool = False
    used: float = 0.0


class Slots:
    """Which session is in which slot of the server."""

    def __init__(self, port, folder, count):
        self.port, self.folder = port, folder
        self.slots = [Slot(number) for number in range(count)]
        self.changed = threading.Condition()

    def file(self, name):
        return self.folder / (name + SUFFIX)

    @contextlib.contextmanager
    def hold(self, name):
        """The number of a slot with this session in it (None: of any slot), for one request."""
        slot = self.take(name)
        try:
            if slot.session != name:
                self.put_away(slot)
                self.fetch(slot, name)
            slot.is_changed = name is not None
            yield slot.number
        finally:
            with self.changed:
                slot.is_busy, slot.used = False, time.monotonic()
                self.changed.notify_all()

    def take(self, name):
        with self.changed:
            while True:
                slot = self.choose(name)
                if slot is not None and not slot.is_busy:
                    slot.is_busy = True
                    return slot
                self.changed.wait()

    def choose(self, name):
        for slot in self.slots:
            if name is not None and slot.session == name:
                return slot
        idle = [slot for slot in self.slots if not slot.is_busy]
        return min(idle, key=lambda slot: (slot.session is not None, slot.used), default=None)

    def put_away(self, slot):
        """Saves what is in a slot, so that a save that breaks off leaves the file before it."""
        if slot.session is None or not slot.is_changed:
            return
        fresh = slot.session + SUFFIX + ".new"
        status, reply = self.ask("POST", f"/slots/{slot.number}?action=save", {"filename": fresh})
        if status != 200:
            raise Refused(507, f"the session '{slot.session}' cannot be saved, so its slot is not given away: {reply}")
        (self.folder / fresh).replace(self.file(slot.session))
        slot.is_changed = False

    def fetch(self, slot, name):
        slot.session = None
        status, reply = self.ask("POST", f"/slots/{slot.number}?action=erase", {})
        if status == 200 and name is not None and self.file(name).exists():
            status, reply = self.ask("POST", f"/slots/{slot.number}?action=restore", {"filename": name + SUFFIX})
        if status != 200:
            raise Refused(409, f"the session '{name}' cannot be restored: {reply}; DELETE /sessions/{name} starts it anew")
        slot.session = name

    def forget(self, name):
        with self.changed:
            for slot in self.slots:
                if slot.session == name and slot.is_busy:
                    raise Refused(409, f"the session '{name}' is at work")
                if slot.session == name:
                    slot.session = None
            self.file(name).unlink(missing_ok=True)

    def list(self):
        with self.changed:
            resident = {slot.session for slot in self.slots if slot.session is not None}
        saved = {path.name[:-len(SUFFIX)]: path.stat().st_size for path in self.folder.glob("*" + SUFFIX)}
        return [{"name": name, "in_slot": name in resident, "bytes": saved.get(name, 0)} for name in sorted(resident | set(saved))]

    def save_all(self):
        for slot in self.slots:
            self.put_away(slot)

    def ask(self, method, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read().decode(errors="replace")
        connection.close()
        return reply.status, text


def named_session(headers, body):
    """The session that a request names, and its JSON; raises Refused."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise Refused(400, f"the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise Refused(400, "the request is not a JSON object")
    name = headers.get("X-Session") or request.pop("session", None)
    if name is not None and (not isinstance(name, str) or not NAME.fullmatch(name)):
        raise Refused(400, "a session's name has 1 to 100 letters, digits, dots, dashes and underscores, and begins with a letter or digit")
    return name, request


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    slots: Slots

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self.dispatch(body)
        except Refused as refusal:
            self.answer(refusal.status, {"error": {"code": refusal.status, "message": str(refusal), "type": "session_error"}})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def dispatch(self, body):
        path = self.path.split("?")[0]
        if path == "/sessions" and self.command == "GET":
            self.answer(200, self.slots.list())
        elif path.startswith("/sessions/") and self.command == "DELETE":
            name = path[len("/sessions/"):]
            if not NAME.fullmatch(name):
                raise Refused(404, "no such session")
            self.slots.forget(name)
            self.answer(200, {"forgotten": name})
        elif self.command == "POST" and COMPUTES.fullmatch(self.path):
            name, request = named_session(self.headers, body)
            with self.slots.hold(name) as number:
                self.forward(json.dumps(request | {"id_slot": number, "cache_prompt": True}).encode())
        else:
            self.forward(body)

    def forward(self, body):
        """Passes the request on, and the reply back as it comes. Hanging up hangs up on the server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.slots.port)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_HEADERS}
            connection.request(self.command, self.path, body, headers)
            reply = connection.getresponse()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in HOP_HEADERS:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            while chunk := reply.read1(1 << 16):
                self.wfile.write(chunk)
                self.wfile.flush()
        except (ConnectionRefusedError, http.client.HTTPException) as error:
            raise Refused(502, f"llama-server does not answer: {error}") from error
        finally:
            connection.close()

    do_GET = do_POST = do_DELETE = do_PUT = do_OPTIONS = serve  # the names that http.server asks for

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def slot_count(port, server):
    """How many slots the server has, once it answers."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/props")
            reply = connection.getresponse()
            if reply.status == 200:
                return int(json.loads(reply.read())["total_slots"])
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit("kvarn: llama-server did not start: see what it says above")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", required=True, type=pathlib.Path, help="folder of the saved sessions; made if it is not there")
    parser.add_argument("server", nargs="+", help="llama-server and its options, after --")
    options = parser.parse_args()
    options.sessions.mkdir(parents=True, exist_ok=True)

    listen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    listen.add_argument("--host", default="127.0.0.1")
    listen.add_argument("--port", type=int, default=8080)
    place, server_command = listen.parse_known_args(options.server)

    port = free_port()
    command = [*server_command, "--host", "127.0.0.1", "--port", str(port), "--slot-save-path", str(options.sessions)]
    # A group of its own: an interrupt from the keyboard is for the proxy, which saves first.
    with subprocess.Popen(command, start_new_session=True) as server:
        try:
            Handler.slots = Slots(port, options.sessions, slot_count(port, server))
            with http.server.ThreadingHTTPServer((place.host, place.port), Handler) as proxy:
                signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=proxy.shutdown).start())
                signal.signal(signal.SIGINT, lambda *_: threading.Thread(target=proxy.shutdown).start())
                print(f"kvarn: sessions of {options.sessions} at http://{place.host}:{place.port}", file=sys.stderr, flush=True)
                proxy.serve_forever()
            Handler.slots.save_all()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
