"""SQLite's locks and shared memory do not work across a network; such a place is refused."""

from pathlib import Path

import pytest

from mhist_tune import filesystems
from mhist_tune.errors import StorageError
from mhist_tune.storage.database import open_storage

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:30 / {folder}/with\\040space rw,relatime shared:1 - nfs4 server:/export rw,vers=4.2
31 30 0:31 / {folder}/with\\040space/local rw,relatime - tmpfs tmpfs rw
32 22 0:32 / {folder}/over rw,relatime - ext4 /dev/vdb rw
33 22 0:33 / {folder}/over rw,relatime - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("", None),
        ("with", None),
        ("with space", "nfs4"),
        ("with space/below/it", "nfs4"),
        ("with space/local/x", None),
        ("over/x", "cifs"),
    ],
)
def test_sqlite_on_a_network_is_refused(
    place: str, kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The innermost and last mount counts; on a network one the error names it and points to PostgreSQL."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS.format(folder=tmp_path))
    monkeypatch.setattr(filesystems, "MOUNTS", table)
    url = f"sqlite:///{tmp_path / place / 'study.db'}"

    assert filesystems.network_file_system(tmp_path / place) == kind
    if kind is None:
        open_storage(url).close()
        return
    with pytest.raises(StorageError, match=kind) as refused:
        open_storage(url)
    assert "postgresql://" in (refused.value.hint or "")
    assert not (tmp_path / place).exists()


@pytest.mark.parametrize(
    "kind",
    [
        *("9p", "afs", "beegfs", "ceph", "cifs", "dvs", "fakeowner", "fuse", "fuse.blobfuse2", "fuse.dbfs"),
        *("fuse.davfs", "fuse.gcsfuse", "fuse.goofys", "fuse.grpcfuse", "fuse.juicefs", "fuse.mount-s3"),
        *("fuse.rclone", "fuse.s3fs", "fuse.sshfs", "fuse.vmhgfs-fuse", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"),
        *("orangefs", "prl_fs", "pvfs2", "smb3", "vboxsf", "virtiofs", "wekafs"),
    ],
)
def test_file_systems_of_other_machines_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems, folders shared with a virtual machine's host, and every FUSE file system are refused."""
    table = tmp_path / "mountinfo"
    table.write_text(f"30 22 0:30 / {tmp_path} rw,relatime shared:1 - {kind} source rw\n")
    monkeypatch.setattr(filesystems, "MOUNTS", table)

    assert filesystems.network_file_system(tmp_path / "storage") == kind


@pytest.mark.parametrize("kind", ["btrfs", "ext4", "fuse.fuse-overlayfs", "fuseblk", "overlay", "tmpfs", "xfs", "zfs"])
def test_local_file_systems_are_accepted(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local file systems are accepted, also the root of a container and a disk formatted for Windows."""
    table = tmp_path / "mountinfo"
    table.write_text(f"30 22 0:30 / {tmp_path} rw,relatime shared:1 - {kind} source rw\n")
    monkeypatch.setattr(filesystems, "MOUNTS", table)

    assert filesystems.network_file_system(tmp_path / "storage") is None


def test_this_machine_can_be_asked(tmp_path: Path) -> None:
    """The real table of mounts can be read, and names a kind for a real path."""
    assert filesystems._file_system_at(tmp_path.resolve(), filesystems.MOUNTS.read_text())
