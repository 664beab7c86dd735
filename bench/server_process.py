"""A running llama-server: started on a free port, asked over HTTP, watched from outside. Knows nothing of caches or plugins."""

import contextlib
import dataclasses
import json
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

REQUEST_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class ServerProcess:
    """One server on this machine's port `port`, which writes its output to the file `log`."""
    port: int
    process: subprocess.Popen
    log: pathlib.Path

    def post(self, path, body):
        """Status and JSON of the reply; a status that is no success is no exception."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def resident_mib(self):
        """Anonymous resident memory of the process: without the files it maps."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:"))) / 1024

    def is_alive(self):
        return self.process.poll() is None

    def output(self):
        return self.log.read_text(encoding="utf-8", errors="replace")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server_process(command, environment, folder, kind=ServerProcess):
    """Runs `command` (llama-server and its options but for host and port) until the block ends; its log is a new file in `folder`."""
    port = free_port()
    log = pathlib.Path(folder) / f"server-{port}.log"
    full = [*map(str, command), "--host", "127.0.0.1", "--port", str(port), "--no-webui"]
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(full, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        running = kind(port, process, log)
        try:
            wait_until_ready(running)
            yield running
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_until_ready(running):
    for _ in range(1200):
        if not running.is_alive():
            raise RuntimeError(f"the server ended: {running.output()[-2000:]}")
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/health", timeout=5) as reply:
                if reply.status == 200:
                    return
        time.sleep(0.1)
    raise RuntimeError("the server did not become ready")
