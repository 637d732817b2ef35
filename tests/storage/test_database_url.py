"""Which storage URLs are accepted. A wrong one is one line, shows nothing of a password, and makes nothing."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhist_tune.errors import StorageError
from mhist_tune.storage import database_url
from mhist_tune.storage.database import open_storage
from tests.storage.test_database import insert_marker, n_markers, without_privileges
from tests.support.postgres import PostgresServer

Run = Callable[..., tuple[int, str, str]]

BAD = [
    "",
    "x",
    "://",
    "postgresql",
    "postgresql:/u:SECRET/d",
    "mysql://u:SECRET@h/d",
    "postgresql+psycopg2://u:SECRET@h/d",
    "postgresql+asyncpg://u:SECRET@h/d",
    "postgresql+pg8000://u:SECRET@h/d",
    "postgres://u:SECRET@h/d",
    "sqlite+aiosqlite:///a.db",
    "sqlite+pysqlcipher://:SECRET@/a.db",
    "postgresql://u:SECRET@h:port/d",
    "postgresql://u:SECRET@h:/d",
    "postgresql://u:SECRET@h:0/d",
    "postgresql://u:SECRET@h:99999/d",
    "postgresql://u:SECRET@h:-1/d",
    f"postgresql://u:SECRET@h:{'9' * 5000}/d",
    "postgresql://u:SECRET@::1/d",
    "postgresql://u:SECRET@[::1/d",
    "postgresql://u:first@SECRET@h/d",
    "postgresql://u:first@SECRET@127.0.0.1:1/d",
    "postgresql://u:first@SEC:SECRET@127.0.0.1/d",
    "postgresql://u:first/SECRET@h/d",
    "postgresql://u:first?SECRET@h/d",
    "postgresql://u:first#SECRET@h/d",
    "postgresql://u:1?SECRET=2@h/d",
    "postgresql://u:SECRET%00@h/d",
    "postgresql://u:SECRET@127.0.0.1:1/d?foo=bar",
    "postgresql://u:SECRET@127.0.0.1:1/d?sslmod=require",
    "postgresql://u:SECRET@127.0.0.1:1/d?sslmode=a&sslmode=b",
    "postgresql://u:SECRET@127.0.0.1:1/d?sslmode=nonsense",
    "postgresql://u:SECRET@127.0.0.1:1/d?port=1,2,3",
    "postgresql://u:SECRET@127.0.0.1:1/d?port=x",
    "postgresql://u:SECRET@/d?host=a:1,b:2,c&port=7",
    "postgresql://127.0.0.1:1/d?password=SECRET&foo=bar",
    "postgresql://127.0.0.1:1/d?user=u&password=SECRET",
    "postgresql://u:SECRET@127.0.0.1:1/d",
    "postgresql://u:SECRET@[::1]:1/d",
    "postgresql://u:SECRET@no-such-host.invalid/d",
    "postgresql://u:SECRET@" + "h" * 300 + "/d",
    "postgresql://u:SECRET@/d?host=" + "h" * 300,
    "postgresql://u:SECRET@h\u00e9\u20ac..x/d",
    "sqlite://",
    "sqlite:///",
    "sqlite:///:memory:",
    "sqlite://x.db",
    "sqlite://u:SECRET@h/x.db",
    "sqlite:///x.db?mode=ro",
    "sqlite:///x.db?mode=ro&uri=true",
    "sqlite:///x\n.db",
    "sqlite:///x\x1b[31m.db",
    "sqlite:///x\udcff.db",
    "sqlite:///x\0.db",
    "sqlite:////dev/zero",
    "sqlite:////dev/null",
    "sqlite:////proc/x/y.db",
    "sqlite:////tmp",
    f"sqlite:///{'x' * 300}.db",
    f"sqlite:///{'x/' * 3000}x.db",
    "sqlite:///~no-such-user/x.db",
]


@pytest.mark.parametrize("url", BAD, ids=[str(index) for index in range(len(BAD))])
def test_a_wrong_url_is_one_line(run: Run, url: str, tmp_path: Path) -> None:
    """Commands that read or create end with 4, one line and a hint; no password is shown and no file is made."""
    for arguments in (["status"], ["create-study", "demo", "--data", str(tmp_path / "none")]):
        code, out, err = run(*arguments, "--storage", url)

        if arguments[0] == "status":
            assert code == 4, err
        assert [line.partition(":")[0] for line in err.splitlines()] == ["error", "  hint"], err
        assert "unexpected" not in err
        assert "SECRET" not in out + err
        assert "SEC" not in err
        assert len(err) < 2500
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("password", ["p", "e", "sesame", "pa:ss", "100%25", "%40%2F%3A%3F", "postgresql"])
def test_a_password_is_neither_shown_nor_betrayed(run: Run, password: str, postgres: PostgresServer) -> None:
    """A refused login shows no password, and no stars in place of letters that happen to be those of a password."""
    host = postgres.new_database().partition("@")[2]
    code, out, err = run("status", "--storage", f"postgresql://nobody:{password}@{host}")

    assert code == 4
    assert out == ""
    assert err.startswith(f"error: cannot use the storage postgresql://nobody:***@{host}: connection ")
    assert err.count("***") == 1


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h/d",
        "postgresql+psycopg://u:p%40q@h:5432/d?sslmode=require&target_session_attrs=read-write",
        "postgresql://u@[::1]:5432/d",
        "postgresql:///d?host=/var/run/postgresql",
        "postgresql://u:a:b@h/d",
        "postgresql://u:p@/d?host=a:1,b:2",
    ],
)
def test_urls_of_servers_are_accepted(url: str) -> None:
    """IPv6, sockets, several hosts, libpq's options and escaped passwords are understood."""
    parsed = database_url.parse(url, create=False)

    assert parsed.drivername == "postgresql+psycopg"
    assert ":p@" not in database_url.without_passwords(parsed)


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` in a path is the home folder, and no folder of that name is made."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with open_storage("sqlite:///~/studies/x.db") as storage:
        assert storage.root == tmp_path / "home" / "studies"

    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    (folder / "archive").chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("is_closed", [True, False], ids=["file alone", "with its log"])
def test_an_archived_storage_is_read(public: Path, is_closed: bool) -> None:
    """A file in a folder that cannot be written is read, nothing is written beside it, and changes are refused."""
    made, archive = public / "made", public / "archive"
    with open_storage(f"sqlite:///{made}/x.db") as storage:
        storage.transaction(insert_marker)
        if is_closed:
            storage.close()
        shutil.copytree(made, archive)
    assert (archive / "x.db-wal").exists() is not is_closed
    for path in archive.iterdir():
        path.chmod(0o444)
    archive.chmod(0o555)
    before = {path.name: path.read_bytes() for path in archive.iterdir()}
    with without_privileges(), open_storage(f"sqlite:///{archive}/x.db", create=False) as storage:
        assert n_markers(storage) == 1
        assert storage.optuna.get_all_studies() == []
        with pytest.raises(StorageError, match="readonly"):
            storage.transaction(insert_marker)

    assert {path.name: path.read_bytes() for path in archive.iterdir()} == before
