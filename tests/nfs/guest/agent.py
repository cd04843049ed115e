"""Runs in each machine and executes what it is told: JSON lines over a raw terminal.

Told:  {"op": "start", "id": N, "argv": [...], "env": {}, "cwd": "/"}     start a command
       {"op": "kill", "id": N, "sig": 9}                                  signal its process group
Says:  {"ev": "ready"}, {"ev": "out", "id": N, "fd": 1, "data": base64}, {"ev": "exit", "id": N, "rc": code}
"""

import base64
import json
import os
import selectors
import signal
import subprocess
import sys
import termios
import tty

terminal = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
tty.setraw(terminal)
attributes = termios.tcgetattr(terminal)
attributes[0] &= ~(termios.IXON | termios.IXOFF | termios.ICRNL)
attributes[1] &= ~termios.OPOST
termios.tcsetattr(terminal, termios.TCSANOW, attributes)

selector = selectors.DefaultSelector()
running = {}  # id: [process, how many of its streams are open]
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def say(**event):
    data = json.dumps(event).encode() + b"\n"
    while data:
        data = data[os.write(terminal, data[:1024]) :]


def start(order):
    number = order["id"]
    try:
        process = subprocess.Popen(
            order["argv"],
            env=ENVIRONMENT | (order.get("env") or {}),
            cwd=order.get("cwd") or "/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        say(ev="out", id=number, fd=2, data=base64.b64encode(f"{error}\n".encode()).decode())
        say(ev="exit", id=number, rc=127)
        return
    running[number] = [process, 2]
    for stream, file in ((1, process.stdout), (2, process.stderr)):
        selector.register(file, selectors.EVENT_READ, (number, stream))


def pass_on(file, number, stream):
    data = os.read(file.fileno(), 65536)
    if data:
        say(ev="out", id=number, fd=stream, data=base64.b64encode(data).decode())
        return
    selector.unregister(file)
    file.close()
    running[number][1] -= 1
    if not running[number][1]:
        say(ev="exit", id=number, rc=running[number][0].wait())
        del running[number]


def obey(order):
    if order["op"] == "start":
        start(order)
    elif order["id"] in running:
        try:
            os.killpg(running[order["id"]][0].pid, order.get("sig", signal.SIGKILL))
        except ProcessLookupError:
            pass


selector.register(terminal, selectors.EVENT_READ, None)
say(ev="ready")
heard = b""
while True:
    for key, _ in selector.select():
        if key.data is not None:
            pass_on(key.fileobj, *key.data)
            continue
        data = os.read(terminal, 65536)
        if not data:
            sys.exit()
        *lines, heard = (heard + data).split(b"\n")
        for line in lines:
            if line.strip():
                obey(json.loads(line))
