"""A Ceph of one monitor, one manager and one OSD on this machine, for block images only.

Owns: its folder, start and end. Must not: measure. Debian packages: ceph-mon ceph-mgr ceph-osd ceph-common.
"""

import json
import shutil
import signal
import socket
import subprocess
import time
import uuid

CAPS = {
    "mon.": ["mon", "allow *"],
    "client.admin": ["mon", "allow *", "osd", "allow *", "mgr", "allow *"],
    "mgr.a": ["mon", "allow profile mgr", "osd", "allow *"],
    "osd.0": ["mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"],
}
# One OSD holds everything once, and no warning about it. BlueStore in a sparse file.
CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
osd objectstore = bluestore
bluestore block size = 42949672960
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
mon max pg per osd = 1000
mon allow pool size one = true
mgr initial modules =
mgr module path = {folder}/modules
keyring = {folder}/keyring
run dir = {folder}/run
crash dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/run/$name.log
pid file = {folder}/run/$name.pid
[mon.a]
mon data = {folder}/mon
[mgr.a]
mgr data = {folder}/mgr
[osd.0]
osd data = {folder}/osd
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ceph:
    """A running cluster with a pool `images`, for the time of a `with` block; its data is removed afterwards."""

    def __init__(self, folder):
        self.folder = folder
        self.conf = folder / "ceph.conf"
        self.daemons = []

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("mon", "mgr", "osd", "run", "modules"):
            (self.folder / name).mkdir(parents=True)
        fsid, port = str(uuid.uuid4()), free_port()
        self.conf.write_text(CONFIGURATION.format(fsid=fsid, port=port, folder=self.folder))
        try:
            self.start(fsid, port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, fsid, port):
        keyring = self.folder / "keyring"
        for number, (name, caps) in enumerate(CAPS.items()):
            pairs = [word for kind, allowed in zip(caps[::2], caps[1::2]) for word in ("--cap", kind, allowed)]
            first = [] if number else ["--create-keyring"]
            call(["ceph-authtool", *first, keyring, "--gen-key", "-n", name, *pairs])
        monmap = self.folder / "monmap"
        call(["monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{port}]", monmap])
        call(["ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring, "-c", self.conf])
        self.daemon("ceph-mon", "a")
        self.ceph("auth", "import", "-i", keyring)
        identity = str(uuid.uuid4())
        self.ceph("osd", "new", identity)
        call(["ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity, "-c", self.conf])
        self.daemon("ceph-osd", "0")
        self.daemon("ceph-mgr", "a")
        self.ceph("osd", "pool", "create", "images", "8")
        self.rbd("pool", "init", "images")

    def daemon(self, program, name):
        out = open(self.folder / f"{program}.out", "wb")
        self.daemons.insert(0, subprocess.Popen([program, "-f", "-c", self.conf, "-i", name], stdout=out, stderr=out))

    def ceph(self, *words):
        return call(["ceph", "-c", self.conf, "--connect-timeout", "120", *words])

    def rbd(self, *words, **more):
        return call(["rbd", "-c", self.conf, *words], **more)

    def settle(self):
        """Waits until the OSD has nothing to do but what it is asked."""
        for _ in range(60):
            status = json.loads(self.ceph("-s", "--format", "json"))
            states = status["pgmap"].get("pgs_by_state", [])
            if states and all(state["state_name"] == "active+clean" for state in states):
                return
            time.sleep(1)

    def __exit__(self, *_):
        for daemon in self.daemons:
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def call(words, **more):
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more).stdout
