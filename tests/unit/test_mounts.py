from __future__ import annotations

import logging

import pytest

from vlmlens.errors import StoreError
from vlmlens.testing._stores import block, values
from vlmlens_plugins.storage import _network_mounts
from vlmlens_plugins.storage._network_mounts import network_of, network_type
from vlmlens_plugins.storage.lmdb import LmdbOptions, LmdbStore

TEXT = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 27 0:45 / /home rw,noatime shared:1 - nfs4 server:/export rw,vers=4.2
31 30 0:46 / /home/me/local rw - xfs /dev/sdb1 rw
32 27 0:47 / /mnt/my\040share rw - cifs //server/share rw
33 27 0:48 / /lustre rw - lustre mds@tcp:/scratch rw
34 27 0:49 / /gpfs/data rw - gpfs data rw
35 27 0:50 / /remote rw - fuse.sshfs me@host: rw
36 27 0:51 / /usb rw - fuseblk /dev/sdc1 rw
37 27 0:52 / /merged rw - fuse.mergerfs a:b rw
38 27 0:53 / /twice rw - nfs server:/x rw
39 38 0:54 / /twice rw - tmpfs tmpfs rw
40 27 0:55 / /bucket rw master:4 propagate_from:2 - fuse.s3fs s3fs rw
not a line of mountinfo
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/run", None),
        ("/home/me/run/columns", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/me", None),
        ("/home/me/local/run", None),
        ("/home/me/locally", "nfs4"),
        ("/mnt/my share/x", "cifs"),
        ("/mnt/my", None),
        ("/lustre/scratch/x", "lustre"),
        ("/gpfs/data", "gpfs"),
        ("/gpfs", None),
        ("/remote/x", "fuse.sshfs"),
        ("/bucket/x", "fuse.s3fs"),
        ("/usb/x", None),
        ("/merged/x", None),
        ("/twice/x", None),
    ],
)
def test_type_of_the_innermost_mount(path, kind):
    assert network_type(path, TEXT) == kind


def test_without_a_table():
    assert network_type("/x", "") is None


def test_this_machines_own_table(tmp_path):
    """The tests' own folder is on a local disk; a link is followed to where it leads."""
    assert network_of(str(tmp_path / "not there yet")) is None


class TestStore:
    @pytest.fixture
    def network(self, tmp_path, monkeypatch):
        """The folder `net` counts as one of NFS."""
        table = tmp_path / "mountinfo"
        table.write_text(
            f"1 1 0:1 / / rw - ext4 a rw\n2 1 0:2 / {tmp_path}/net rw - nfs4 s:/e rw\n"
        )
        monkeypatch.setattr(_network_mounts, "MOUNTS", table)
        return tmp_path / "net"

    def open(self, folder, mode="a", **options):
        return LmdbStore.open(str(folder), mode=mode, options=LmdbOptions(**options))

    def test_writing_is_refused_with_advice(self, network):
        with pytest.raises(StoreError, match=r"network file system \(nfs4\).*force_network=true"):
            self.open(network / "columns")
        assert not network.exists()
        network.mkdir()
        (network.parent / "link").symlink_to(network)
        with pytest.raises(StoreError, match="nfs4"):
            self.open(network.parent / "link" / "columns")
        self.open(network.parent / "local").close()

    def test_forced(self, network, caplog):
        with self.open(network, force_network=True) as store:
            store.write(block("a", x=values(1, rows=1)))
        assert caplog.text == ""
        with caplog.at_level(logging.WARNING), self.open(network, "r") as store:
            assert store.ids("x") == ["a"]
        assert "nfs4" in caplog.text
