"""What the machines are made of: Debian packages, downloaded and unpacked, not installed; root is not needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ["user-mode-linux", "uml-utilities", "busybox-static", "nfs-common", "nfs-kernel-server", "rpcbind"]
NEEDED = ["apt-get", "dpkg-deb", "mkfs.ext4"]


class Unavailable(Exception):
    """This machine can't run the rig; the text says why."""


def unpacked(folder: Path | None = None) -> Path:
    """The folder that holds them, which is filled if that was not done before. Raises `Unavailable`."""
    folder = folder or Path(tempfile.gettempdir()) / f"psync-nfs-packages-{os.getuid()}"
    if (folder / ".complete").exists():
        return folder
    path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
    missing = [program for program in NEEDED if shutil.which(program, path=path) is None]
    if missing or os.uname().machine != "x86_64":
        raise Unavailable(
            f"it needs Debian on x86_64 with {', '.join(NEEDED)}; missing: {', '.join(missing) or 'x86_64'}"
        )
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="psync-nfs-") as files:
        try:
            _download(Path(files))
        except (subprocess.SubprocessError, OSError) as error:
            raise Unavailable(f"the Debian packages can't be had: {error}") from error
        for package in Path(files).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True, timeout=120)
    for name in ("bin", "sbin", "lib"):  # they are one with /usr/bin and so on, as they are on this machine
        if (folder / name).is_dir():
            shutil.copytree(folder / name, folder / "usr" / name, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(folder / name)
    (folder / ".complete").touch()
    return folder


def _download(folder: Path) -> None:
    command = ["apt-get", "-s", "-qq", "--no-install-recommends", "install", "--reinstall", *NAMES]
    plan = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    names = {line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")} | set(NAMES)
    command = ["apt-get", "-qq", "download", *sorted(names)]
    subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL, timeout=300)
