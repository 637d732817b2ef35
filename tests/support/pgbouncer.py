"""A PgBouncer before the tests' PostgreSQL server, from Debian's package: its own process, port and files."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import sqlalchemy

_START_S = 30.0


class PgBouncer:
    """A running PgBouncer, without any setting for this program but the mode of its pool.

    Args:
        url: of a database, with user and password.
        pool_mode: `session` or `transaction`.

    Attributes:
        url: that of the same database through PgBouncer.
    """

    def __init__(self, url: str, pool_mode: str) -> None:
        binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if binary is None:
            pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
        server = sqlalchemy.make_url(url)
        self._folder = Path(tempfile.mkdtemp(prefix="mhist-tune-pgbouncer-"))
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        (self._folder / "users.txt").write_text(f'"{server.username}" "{server.password}"\n')
        (self._folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={server.host} port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nauth_type = md5\nauth_file = users.txt\npool_mode = {pool_mode}\n"
            f"unix_socket_dir =\nlogfile = {self._folder}/log\npidfile = {self._folder}/pid\n"
        )
        identity = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for path in (self._folder, *self._folder.iterdir()):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        subprocess.run([binary, "--daemon", "pgbouncer.ini"], cwd=self._folder, check=True, **identity)
        self._await(port)
        self.url = server.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    def _await(self, port: int) -> None:
        """Return when it listens: the command returns before that."""
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_START_S):
                return
            assert time.monotonic() < deadline, (self._folder / "log").read_text()

    def remove(self) -> None:
        """Stop it and remove its files."""
        os.kill(int((self._folder / "pid").read_text()), signal.SIGKILL)
        shutil.rmtree(self._folder)
