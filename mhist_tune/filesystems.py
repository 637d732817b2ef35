"""The type of file system that a path is on, from the kernel's list of mounts. Linux only."""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "dvs", "fakeowner", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"),
    *("nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
    "wekafs",
}
# A program answers for these. Nearly all of them fetch from a network or share a host's folder with a machine in it.
_FUSE = "fuse"
_LOCAL_FUSE = {"fuse.fuse-overlayfs"}  # the root of a container that an ordinary user runs
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_file_system(path: Path) -> str | None:
    """Return the type of network file system that a path is on, such as "nfs4".

    Folders that a virtual machine shares with its host (9p, virtiofs) count as network file systems, and so does FUSE.
    None if the file system is local, or if its type cannot be read.
    """
    try:
        mounts = MOUNTS.read_text()
    except OSError:  # not Linux
        return None
    file_system = _file_system_at(path.resolve(), mounts)
    return file_system if file_system is not None and _is_network(file_system) else None


def _is_network(file_system: str) -> bool:
    if file_system in _LOCAL_FUSE:
        return False
    return file_system in _NETWORK or file_system.partition(".")[0] == _FUSE


def _file_system_at(path: Path, mounts: str) -> str | None:
    """Return the type of the innermost mount that contains a path; of two mounts on one point, the later one counts."""
    depth, file_system = -1, None
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            depth, file_system = len(point.parts), rest.split(" ")[0]
    return file_system
