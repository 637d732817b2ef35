"""Which kind of file system a path lies on, as the kernel's table of mounts tells it."""

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
    """Return the kind of network file system that a path lies on; None if it is none, or there is no way to tell."""
    try:
        mounts = MOUNTS.read_text()
    except OSError:  # not Linux
        return None
    kind = _kind_at(path.resolve(), mounts)
    return kind if kind in _NETWORK else None


def _kind_at(path: Path, mounts: str) -> str | None:
    """Return the kind of the innermost mount around a path; of mounts on one point the last one counts."""
    depth, found = -1, None
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            depth, found = len(point.parts), rest.split(" ")[0]
    return found
