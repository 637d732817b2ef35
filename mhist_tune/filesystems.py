"""The type of file system that a path is on, from the kernel's list of mounts. Linux only."""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = {
    *("afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.cephfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.s3fs"),
    *("fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs"),
    *("smb3", "smbfs", "wekafs"),
}
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_file_system(path: Path) -> str | None:
    """Return the type of network file system that a path is on, such as "nfs4".

    None if the file system is local, or if its type cannot be read.
    """
    try:
        mounts = MOUNTS.read_text()
    except OSError:  # not Linux
        return None
    file_system = _file_system_at(path.resolve(), mounts)
    return file_system if file_system in _NETWORK else None


def _file_system_at(path: Path, mounts: str) -> str | None:
    """Return the type of the innermost mount that contains a path; of two mounts on one point, the later one counts."""
    depth, file_system = -1, None
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            depth, file_system = len(point.parts), rest.split(" ")[0]
    return file_system
