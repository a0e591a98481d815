"""How each tool is called. The peers' settings are the fastest honest ones known; see "Fairness" in bench/README.md.

Owns: command lines and the meaning of outputs. Must not: decide order or repetition.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from .images import MIB, fio_log
from .measure import CommandFailed, Sample, last_json

SECRET = "correct horse battery staple"
TREE = Path(__file__).resolve().parents[2]


def build(arguments, profile="release"):
    """Builds binaries of this tree; returns the folder they are in."""
    subprocess.run(["cargo", "build", "--profile", profile, "--quiet", *arguments], cwd=TREE, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", TREE / "target")) / ("debug" if profile == "dev" else profile)


class Tools:
    """All tools, and the folders they write to."""

    def __init__(self, runner, options, phases):
        self.runner = runner
        self.repositories = options.work / "repositories"
        self.targets = options.work / "targets"
        self.secret = options.work / "passphrase"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        # The clients of S3 and Kubernetes take minutes to build; without their phases they are left out, as in `cargo demo`.
        features = ["--features", "s3"] if {"s3", "cluster", "csi"} & set(phases) else ["--no-default-features"]
        probes = options.probes or build(["-p", "bench", *features])
        self.ceiling = Ceiling(self, probes.resolve() / "ceiling-probe")
        self.put_probe = probes.resolve() / "put-probe"
        self.gc_mark = probes.resolve() / "gc-mark"
        self.rbd_read = probes.resolve() / "rbd-read"
        self.fio = Fio(self)
        self.qemu = Qemu(self)
        binary = options.snaphaul
        if binary is None and "snaphaul" not in options.skip:
            binary = build(["-p", "mover", *features]) / "snaphaul"
        rustic = options.rustic or shutil.which("rustic")
        candidates = [
            None if "snaphaul" in options.skip else Snaphaul(self, Path(binary).resolve()),
            Restic(self) if shutil.which("restic") else None,
            Borg(self) if shutil.which("borg") else None,
            Rustic(self, Path(rustic).resolve()) if rustic else None,
        ]
        for binary in (self.ceiling.binary, self.put_probe, self.gc_mark, self.rbd_read, *(tool.binary for tool in candidates if hasattr(tool, "binary"))):
            runner.aliases[str(binary)] = binary.name
        self.backup = {tool.name: tool for tool in candidates if tool and tool.name not in options.skip}

    @property
    def snaphaul(self):
        return self.backup.get("snaphaul")

    def fresh(self, folder):
        """An empty folder in place of what was there."""
        if folder.is_mount():
            for entry in folder.iterdir():
                remove(entry)
        else:
            remove(folder)
            folder.mkdir(parents=True)
        return folder


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def tree_bytes(folder):
    """Bytes and number of the files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files), len(files)


class BackupTool:
    """A tool with a repository: `init`, `backup`, `restore`."""

    name = ""

    def __init__(self, tools):
        self.tools = tools
        self.runner = tools.runner

    def repository(self):
        return self.tools.repositories / self.name

    def target(self):
        return self.tools.fresh(self.tools.targets / self.name)

    def environment(self):
        return {}

    def measure(self, case, repeat, command, **more):
        return self.runner.run(case, self.name, repeat, command, env=self.environment(), **more)


class Snaphaul(BackupTool):
    """The one this is about. Encrypted, LZ4, every byte durable at exit: the defaults."""

    name = "snaphaul"

    def __init__(self, tools, binary):
        super().__init__(tools)
        self.binary = binary
        self.more_environment = {}

    def version(self):
        return self.runner.quiet([self.binary, "--version"]).strip()

    def environment(self):
        return self.more_environment

    def access(self, url):
        return ["--repo", url or f"file://{self.repository()}", "--passphrase-file", self.tools.secret]

    def init(self, url=None, more=()):
        if url is None:
            self.tools.fresh(self.repository())
        self.runner.quiet([self.binary, "init", *self.access(url), *more], env=self.environment())

    def backup(self, case, repeat, image, url=None, more=()):
        metrics = self.runner.work / "metrics.txt"
        metrics.unlink(missing_ok=True)
        volume = getattr(image, "stem", "image")
        command = [self.binary, "backup", image, "--volume", volume, *self.access(url)]
        command += ["--json", "--metrics-file", metrics, *more]
        sample, out = self.measure(case, repeat, command)
        return self.finish(case, sample, out, metrics)

    def restore(self, case, repeat, image, url=None, more=()):
        metrics = self.runner.work / "metrics.txt"
        metrics.unlink(missing_ok=True)
        target = self.target() / "restored.raw"
        command = [self.binary, "restore", f"{image.stem}@latest", target, *self.access(url)]
        command += ["--json", "--metrics-file", metrics, *more]
        sample, out = self.measure(case, repeat, command, flush=target)
        return self.finish(case, sample, out, metrics), target

    def forget(self, point):
        self.runner.quiet([self.binary, "forget", point, *self.access(None)], env=self.environment())

    def backup_quietly(self, image):
        """A point that is not measured; gives its id."""
        command = [self.binary, "backup", image, "--volume", image.stem, *self.access(None), "--json"]
        return last_json(self.runner.quiet(command, env=self.environment()))["point"]

    def copy_all(self, url):
        """Copies all points to another repository, which has the same passphrase."""
        command = [self.binary, "copy", "--all", *self.access(None), "--to", url, "--to-passphrase-file", self.tools.secret]
        self.runner.quiet(command, env=self.environment())

    def collect(self, case, repeat, more=()):
        sample, out = self.runner.run(case, "snaphaul gc", repeat, [self.binary, "gc", *self.access(None), "--json", *more], env=self.environment())
        sample.extra = last_json(out)
        return sample

    @contextlib.contextmanager
    def rewriting(self):
        """One garbage collection that is at work on the data when the block begins, and killed at its end."""
        command = [str(word) for word in [self.binary, "gc", "--quiet", *self.access(None)]]
        loop = subprocess.Popen(command, env=self.runner.environment(self.environment()), stderr=subprocess.DEVNULL)
        try:
            # The first second goes to the key, the listings and the deletions; a run begins with one of rest.
            yield
        finally:
            loop.kill()
            loop.wait()

    @contextlib.contextmanager
    def collecting(self):
        """Garbage collections of the repository, one after the other, until the block ends."""
        command = shlex.join(str(word) for word in [self.binary, "gc", "--quiet", *self.access(None)])
        environment = self.runner.environment(self.environment())
        loop = subprocess.Popen(["bash", "-c", f"while {command}; do :; done"], env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        try:
            yield
            if loop.poll() is not None:
                raise CommandFailed("gc failed beside the backup")
        finally:
            os.killpg(loop.pid, signal.SIGKILL)
            loop.wait()

    def verify(self, case, repeat, image):
        """Every byte of the newest point, as `--level data` reads it."""
        command = [self.binary, "verify", f"{image.stem}@latest", "--level", "data", *self.access(None), "--json"]
        sample, out = self.runner.run(case, "snaphaul verify", repeat, command, env=self.environment())
        sample.extra = last_json(out)
        return sample

    def changed(self, case, repeat, image, base):
        """What changed, as text: the first extents, the picture and the sum; a million lines of JSON would be kept raw."""
        sample, out = self.runner.run(case, "snaphaul", repeat, [self.binary, "changed", image, "--base", base], env=self.environment())
        sample.extra = {"extents": int(re.search(r" in (\d+) extents", out).group(1))}
        return sample

    def finish(self, case, sample, out, metrics):
        """Puts the result line and the request counters beside the figures."""
        sample.extra = last_json(out)
        text = metrics.read_text() if metrics.exists() else ""
        self.runner.keep(f"{case}/snaphaul-{sample.repeat}.metrics.txt", text)
        sample.extra["requests"] = requests(text)
        return sample


def requests(text):
    """Requests by operation, from the counters of a metrics file."""
    found = re.findall(r'^snaphaul_store_requests_\w+\{.*?operation="(\w+)".*?\} (\S+)$', text, re.MULTILINE)
    return {operation: int(float(value)) for operation, value in found}


class Restic(BackupTool):
    """Packs of 64 MiB and eight connections instead of the defaults 16 MiB and two: faster on a local disk."""

    name = "restic"

    def version(self):
        return self.runner.quiet(["restic", "version"]).strip()

    def environment(self):
        return {"RESTIC_PASSWORD": SECRET, "RESTIC_CACHE_DIR": str(self.runner.home / "restic")}

    def call(self, *words):
        return ["restic", "-r", self.repository(), "-o", "local.connections=8", *words]

    def init(self):
        self.tools.fresh(self.repository())
        self.runner.quiet(self.call("init", "--repository-version", "latest"), env=self.environment())

    def backup(self, case, repeat, image, again=False):
        # --force: a block device has no times to trust, so a second backup reads everything.
        more = ["--force"] if again else []
        return self.measure(case, repeat, self.call("backup", "--compression", "auto", "--pack-size", "64", *more, image))[0]

    def restore(self, case, repeat, image):
        folder = self.target()
        target = folder / image.relative_to("/")
        return self.measure(case, repeat, self.call("restore", "latest", "--target", folder), flush=target)[0], target


class Borg(BackupTool):
    """Fixed chunks of 1 MiB, LZ4, holes skipped, no encryption: its fastest setting for an image."""

    name = "borg"

    def version(self):
        return self.runner.quiet(["borg", "--version"]).strip()

    def environment(self):
        return {"BORG_BASE_DIR": str(self.runner.home / "borg"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def init(self):
        self.tools.fresh(self.repository())
        remove(self.runner.home / "borg")
        self.runner.quiet(["borg", "init", "--encryption=none", self.repository()], env=self.environment())

    def backup(self, case, repeat, image, again=False):
        command = ["borg", "create", "--chunker-params", "fixed,1048576", "--compression", "lz4", "--sparse"]
        command += ["--files-cache", "disabled", "--stats", f"{self.repository()}::{case}-{repeat}{'-again' if again else ''}", image]
        return self.measure(case, repeat, command)[0]

    def restore(self, case, repeat, image):
        listed = self.runner.quiet(["borg", "list", "--short", "--last", "1", self.repository()], env=self.environment())
        folder = self.target()
        target = folder / image.relative_to("/")
        command = ["borg", "extract", "--sparse", f"{self.repository()}::{listed.strip()}"]
        return self.measure(case, repeat, command, cwd=folder, flush=target)[0], target


class Rustic(BackupTool):
    """Fixed chunks of 1 MiB, zstd."""

    name = "rustic"

    def __init__(self, tools, binary):
        super().__init__(tools)
        self.binary = binary

    def version(self):
        return self.runner.quiet([self.binary, "--version"]).strip()

    def environment(self):
        return {"RUSTIC_PASSWORD": SECRET, "XDG_CACHE_HOME": str(self.runner.home / "rustic")}

    def call(self, *words):
        return [self.binary, "-r", self.repository(), "--no-progress", *words]

    def init(self):
        self.tools.fresh(self.repository())
        self.runner.quiet(self.call("init", "--set-chunker", "fixed_size", "--set-chunk-size", "1MiB"), env=self.environment())

    def backup(self, case, repeat, image, again=False):
        more = ["--force"] if again else []
        return self.measure(case, repeat, self.call("backup", *more, image))[0]

    def restore(self, case, repeat, image):
        folder = self.target()
        target = folder / image.name
        words = ["restore", "--sparse", "by-content", f"latest:{image}", folder]
        return self.measure(case, repeat, self.call(*words), flush=target)[0], target


class Ceiling:
    """The probe of this crate. Its seconds are its own, without the start of the process."""

    def __init__(self, tools, binary):
        self.tools, self.binary = tools, binary

    def measure(self, case, repeat, words):
        sample, out = self.tools.runner.run(case, "ceiling-probe", repeat, [self.binary, *words])
        sample.extra = last_json(out)
        sample.seconds = sample.extra["seconds"]
        return sample

    def backup(self, case, repeat, image, folder=None):
        folder = self.tools.fresh(folder or self.tools.repositories / "ceiling")
        sample = self.measure(case, repeat, [image, "--output", folder])
        self.tools.fresh(folder)
        return sample

    def read(self, case, repeat, image):
        return self.measure(case, repeat, [image, "--mode", "read"])

    def store(self, case, image):
        """Stores the image for the restores that follow."""
        folder = self.tools.fresh(self.tools.repositories / "ceiling")
        self.measure(case, 1, [image, "--output", folder])

    def restore(self, case, repeat, image):
        """Restores what `store` left, and compares it the first time."""
        target = self.tools.fresh(self.tools.targets / "ceiling") / "restored.raw"
        folder = self.tools.repositories / "ceiling"
        sample = self.measure(case, repeat, [folder, "--mode", "restore", "--output", target])
        if repeat == 1:
            self.tools.runner.quiet(["cmp", image, target])
        remove(target)
        return sample


class Fio:
    """What the disk gives. Seconds are those of fio's own jobs, without its start."""

    common = ["--ioengine=io_uring", "--iodepth=32", "--direct=1", "--thread", "--output-format=json"]

    def __init__(self, tools):
        self.tools = tools

    def version(self):
        return self.tools.runner.quiet(["fio", "--version"]).strip()

    def read(self, case, repeat, image):
        """Reads the allocated extents of the image once, in order, 1 MiB at a time."""
        log = fio_log(image, self.tools.runner.work / "fio.log")
        command = ["fio", "--name=read", f"--read_iolog={log}", *self.common]
        return self.jobs(case, repeat, "fio-read", command)

    def read_and_write(self, case, repeat, image):
        """Reads the image and writes as much to 32 MiB files beside it, both at once, ending with a flush."""
        size = image.stat().st_size
        folder = self.tools.fresh(self.tools.targets / "fio")
        command = ["fio", *self.common]
        command += ["--name=read", f"--filename={image}", "--rw=read", "--bs=1m", f"--size={size}"]
        command += ["--name=write", f"--directory={folder}", "--rw=write", "--bs=1m", f"--size={size}", "--end_fsync=1"]
        command += [f"--nrfiles={size // (32 * MIB)}", "--file_service_type=sequential", "--fallocate=none", "--refill_buffers=0"]
        sample = self.jobs(case, repeat, "fio-read-write", command)
        self.tools.fresh(folder)
        return sample

    def jobs(self, case, repeat, name, command):
        sample, out = self.tools.runner.run(case, name, repeat, command)
        jobs = json.loads(out[out.index("{"):])["jobs"]
        runtimes = {job["jobname"]: job["job_runtime"] / 1000 for job in jobs}
        moved = {job["jobname"]: job["read"]["io_bytes"] + job["write"]["io_bytes"] for job in jobs}
        extra = {"job_seconds": runtimes, "job_bytes": moved}
        return Sample(name, repeat, max(runtimes.values()), sample.cpu_seconds, sample.peak_bytes, extra)


class Qemu:
    """A raw copy of the image, holes left out: what restoring would cost if nothing had to be decoded."""

    def __init__(self, tools):
        self.tools = tools

    def version(self):
        return self.tools.runner.quiet(["qemu-img", "--version"]).splitlines()[0]

    def copy(self, case, repeat, image):
        target = self.tools.fresh(self.tools.targets / "qemu") / "restored.raw"
        command = ["qemu-img", "convert", "-t", "none", "-T", "none", "-m", "16", "-W", "-f", "raw", "-O", "raw", image, target]
        sample, _ = self.tools.runner.run(case, "qemu-img", repeat, command, flush=target)
        remove(target)
        return sample
