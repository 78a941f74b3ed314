"""On what kind of file system a folder lies, by what /proc/self/mountinfo says."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = frozenset(
    {
        "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "cvmfs", "dvs", "fhgfs", "gfs", "gfs2",
        "glusterfs", "gpfs", "lustre", "mmfs", "ncp", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs",
        "panfs", "pvfs2", "quobyte", "smb2", "smb3", "smbfs", "wekafs",
    }
)  # fmt: skip
"""Not what a virtual machine shares with its host (9p, virtiofs): that is no network."""

_FUSE_NETWORK = frozenset(
    {
        "afpfs", "blobfuse", "blobfuse2", "ceph", "ceph-fuse", "cephfs", "curlftpfs", "cvmfs2",
        "davfs", "gcsfuse", "glusterfs", "goofys", "grpcfuse", "hadoop-fuse-dfs", "hdfs", "jfs",
        "juicefs", "mfs", "moosefs", "mount-s3", "mountpoint-s3", "rclone", "s3fs",
        "seaweedfs", "sshfs", "weed",
    }
)  # fmt: skip
_OCTAL = re.compile(r"\\([0-7]{3})")


def network_type(path: str, mounts: str) -> str | None:
    """The type of the network file system that holds a path, or None where it is a local one.

    Args:
        path: An absolute path without links.
        mounts: The text of /proc/self/mountinfo.

    >>> line = "36 35 0:45 / /data rw,noatime shared:1 - nfs4 server:/export rw,vers=4.2"
    >>> network_type("/data/run/columns", line), network_type("/database", line)
    ('nfs4', None)
    """
    kind = _type_of(PurePosixPath(path), mounts)
    if kind is None:
        return None
    outer, _, inner = kind.partition(".")
    if outer in ("fuse", "fuseblk") and inner:
        return kind if inner in _FUSE_NETWORK else None
    return kind if outer in _NETWORK else None


def network_of(folder: str) -> str | None:
    """The type of the network file system on which a folder will lie; None: local, or unknown."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return network_type(str(Path(folder).resolve()), mounts)


def _type_of(path: PurePosixPath, mounts: str) -> str | None:
    """The type of the innermost mount; of several in one place the last one counts."""
    found, depth = None, -1
    for line in mounts.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5 or not right:
            continue
        point = PurePosixPath(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = right.split(" ")[0], len(point.parts)
    return found
