"""An NFS server and its clients, without root: each a User Mode Linux kernel that runs as a process of this machine.

Separate kernels have separate caches of attributes, names and pages, separate clocks and separate locks; the network
between them is a switch in user space. They see this machine's files read-only, so its Python and psync run in them.
``/nfs/v4`` and ``/nfs/v3`` on the clients are one export, mounted with default options.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.nfs.packages import Unavailable, unpacked

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent
ADDRESSES = {"server": 1, "c1": 11, "c2": 12, "c3": 13}
MOUNTS = {"v4": ("/", ""), "v3": ("/export/data", "vers=3")}
"""Name below /nfs: what is mounted of the server, and how."""
BOOTING = 90.0
"""Seconds a machine may take."""


class Janitor:
    """Cleans up when this process has ended, however it did: kills what is still there, and removes the folder."""

    def __init__(self, folder: Path) -> None:
        self._groups = folder / "groups"
        self._groups.mkdir()
        cleaning = 'cat; for each in "$0"/groups/[0-9]*; do kill -s KILL -- "-${each##*/}"; done; rm -rf "$0"'
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", cleaning, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def started(self, process: subprocess.Popen[bytes]) -> None:
        """It leads a process group."""
        (self._groups / str(process.pid)).touch()

    def ended(self, process: subprocess.Popen[bytes]) -> None:
        (self._groups / str(process.pid)).unlink(missing_ok=True)

    def clean(self) -> None:
        self._shell.communicate()


class Failed(Exception):
    """A command on a machine ended with another code than 0."""


class Command:
    """A command that runs on a machine."""

    def __init__(self, machine: Machine, number: int, text: str) -> None:
        self._machine, self._number, self._text = machine, number, text
        self._said = {1: bytearray(), 2: bytearray()}
        self._ended = threading.Event()
        self.code: int | None = None

    def hear(self, event: dict[str, Any]) -> None:
        if event["ev"] == "out":
            self._said[event["fd"]] += base64.b64decode(event["data"])
        else:
            self.code = event["rc"]
            self._ended.set()

    def output(self, timeout: float = 120.0) -> str:
        """What it printed, when it has ended. Raises `Failed`, TimeoutError."""
        if not self._ended.wait(timeout):
            self.kill()
            raise TimeoutError(
                f"{self._machine.name}: {self._text} still runs after {timeout} s: {self.said(2)[-1000:]}"
            )
        if self.code:
            what = f"{self.said(1)[-3000:]}\n{self.said(2)[-3000:]}"
            raise Failed(f"{self._machine.name}: {self._text} ended with {self.code}: {what}")
        return self.said(1)

    def result(self, timeout: float = 120.0) -> Any:
        """What a deed returned."""
        return json.loads(self.output(timeout).rpartition("\nresult ")[2])

    def said(self, stream: int) -> str:
        return self._said[stream].decode(errors="replace")

    def wait_for(self, text: str, timeout: float = 60.0) -> None:
        """Until it has printed `text`."""
        end = time.monotonic() + timeout
        while text not in self.said(1):
            if self._ended.is_set() or time.monotonic() > end:
                raise Failed(f"{self._machine.name}: {self._text} never said {text!r}: {self.said(1)} {self.said(2)}")
            time.sleep(0.01)

    def kill(self, sign: int = signal.SIGKILL) -> None:
        """Signal it and all that it started."""
        self._machine.tell(op="kill", id=self._number, sig=int(sign))


class Machine:
    def __init__(self, rig: Rig, name: str) -> None:
        self._rig, self.name = rig, name
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._count = 0

    def boot(self) -> None:
        """Start it, anew if it runs already; returns when it is ready. Raises `Unavailable`."""
        self.power_off()
        self.switch_on()
        self.wait_ready()

    def switch_on(self) -> None:
        rig = self._rig
        self._wire, theirs = socket.socketpair()
        self._ready = threading.Event()
        self._commands: dict[int, Command] = {}
        address = ADDRESSES[self.name]
        arguments = [
            str(rig.packages / "usr/bin/linux.uml"),
            "mem=768M",  # of which it takes what it uses
            f"umid={self.name}-{os.getpid()}-{time.monotonic_ns()}",
            f"uml_dir={rig.folder}/uml",
            *"root=/dev/root rootfstype=hostfs rootflags=/ ro init=/bin/sh".split(),
            *"quiet con=null con0=null,fd:1 ssl=null".split(),
            f"con1=fd:{theirs.fileno()}",
            f"eth0=daemon,02:00:0a:63:00:{address:02x},unix,{rig.folder}/switch",
        ]
        if self.name == "server":
            arguments.append(f"ubd0={rig.folder}/disk")
        given = {
            "rig_name": self.name,
            "rig_role": "server" if self.name == "server" else "client",
            "rig_ip": f"10.99.0.{address}",
            "rig_prefix": rig.packages,
            "rig_dir": HERE,
            "rig_share": f"{TREE}:{sys.prefix}",
            "rig_xchg": rig.exchange,
            "rig_python": os.path.realpath(sys.executable),
            "rig_lease": rig.lease or "",
        }
        arguments += [*(f"{name}={value}" for name, value in given.items()), "--", str(HERE / "guest/init.sh")]
        with open(rig.folder / f"{self.name}.log", "ab") as log:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        rig.janitor.started(self._process)
        theirs.close()
        threading.Thread(target=self._listen, args=(self._wire, self._ready, self._commands), daemon=True).start()

    def wait_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + BOOTING
        while not self._ready.wait(0.1):
            if self._process.poll() is not None or time.monotonic() > end:
                log = (self._rig.folder / f"{self.name}.log").read_text(errors="replace")
                raise Unavailable(f"the machine {self.name} did not come up: {log[-1500:]}")
        if self.name != "server":
            for name, (source, options) in MOUNTS.items():
                self.mount(name, source, options)

    def mount(self, name: str, source: str, options: str) -> None:
        mount = f"mount -t nfs {'-o ' + options if options else ''} server:{source} /nfs/{name}"
        self.run(f"mkdir -p /nfs/{name}; for i in 1 2 3 4 5 6 7 8 9; do {mount} && exit 0; sleep .5; done; exit 1")

    @staticmethod
    def _listen(wire: socket.socket, ready: threading.Event, commands: dict[int, Command]) -> None:
        """What one boot of the machine says, until it is over."""
        heard = b""
        try:
            while data := wire.recv(65536):
                *lines, heard = (heard + data).split(b"\n")
                for line in lines:
                    start = line.find(b'{"ev"')  # what stands before is noise of the console
                    if start >= 0:
                        event = json.loads(line[start:])
                        if event["ev"] == "ready":
                            ready.set()
                        elif event["id"] in commands:
                            commands[event["id"]].hear(event)
        except OSError:
            pass
        for command in list(commands.values()):
            if command.code is None:
                command.hear({"ev": "exit", "rc": -1})

    def tell(self, **order: Any) -> None:
        with self._lock:
            self._wire.sendall(json.dumps(order).encode() + b"\n")

    def start(self, command: str | Sequence[object], environment: dict[str, str] | None = None) -> Command:
        """Begin a command: a string is the shell's."""
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else [str(word) for word in command]
        with self._lock:
            self._count += 1
            started = self._commands[self._count] = Command(self, self._count, " ".join(words)[:200])
        self.tell(op="start", id=started._number, argv=words, env=environment, cwd=str(TREE))
        return started

    def run(self, command: str | Sequence[object], timeout: float = 120.0, **options: Any) -> str:
        return self.start(command, **options).output(timeout)

    def do(self, deed: str, *arguments: object) -> Command:
        """Begin the function `deed` of `tests.nfs.programs`, in a process of its own."""
        return self.start([sys.executable, "-m", "tests.nfs.programs", deed, json.dumps(arguments)])

    def power_off(self) -> None:
        """As if somebody had pulled the plug."""
        process = self._process
        if process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._rig.janitor.ended(process)
            self._wire.close()

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)  # the kernel only: what it traces must see no signal

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


class Rig:
    """A server and `clients` clients. `lease`: seconds after which the server forgets who does not answer (90)."""

    def __init__(self, clients: int = 2, lease: int | None = None) -> None:
        self.packages = unpacked()
        self.lease = lease
        self.folder = Path(tempfile.mkdtemp(prefix="psync-nfs-"))
        self.exchange = self.folder / "exchange"
        names = ["server", *(f"c{number}" for number in range(1, clients + 1))]
        for folder in (self.folder / "uml", *(self.exchange / name for name in names)):
            folder.mkdir(parents=True)
        self.machines = {name: Machine(self, name) for name in names}
        self.server, *self.clients = self.machines.values()
        self.janitor = Janitor(self.folder)
        self._switch: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Rig:
        try:
            self._up()
        except BaseException:
            self._down()
            raise
        return self

    def _up(self) -> None:
        with open(self.folder / "disk", "wb") as disk:
            disk.truncate(2 << 30)
        mkfs = shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
        lazily = "lazy_itable_init=1,lazy_journal_init=1"
        subprocess.run([mkfs or "mkfs.ext4", "-q", "-E", lazily, self.folder / "disk"], check=True, timeout=60)
        switch = self.folder / "switch"
        program = self.packages / "usr/bin/uml_switch"
        self._switch = subprocess.Popen(  # which ends at the end of its standard input
            [program, "-unix", switch],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.janitor.started(self._switch)
        while not switch.exists():
            if self._switch.poll() is not None:
                raise Unavailable(f"{program} does not run here")
            time.sleep(0.01)
        for machine in self.machines.values():
            machine.switch_on()
        for machine in self.machines.values():
            machine.wait_ready()

    def _down(self) -> None:
        for machine in self.machines.values():
            machine.power_off()
        self.janitor.clean()
        if self._switch is not None:
            self._switch.communicate()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._down()
