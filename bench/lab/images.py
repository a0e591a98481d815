"""Reference data, made the same way every time: seeds are fixed, only /usr of the machine differs, and its sum is recorded.

Owns: the images directory and the XFS loop mount. Must not: leave an image changed: rewrites are undone.
"""

import errno
import hashlib
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

from .measure import say

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
PIECE = 64 * KIB
CHUNK = 128 * KIB


def noise(seed):
    """An endless stream of incompressible bytes that depends on `seed` only: AES-256 in counter mode over zeros."""
    key = hashlib.sha256(seed.encode()).hexdigest()
    return subprocess.Popen(
        ["openssl", "enc", "-aes-256-ctr", "-nosalt", "-K", key, "-iv", "0" * 32, "-in", "/dev/zero"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )


def extents(path):
    """Allocated ranges (offset, length) of a file, ascending."""
    found = []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, position - start))
    return found


def allocated(path):
    return sum(length for _, length in extents(path))


class Images:
    """Where the images are, and how they come to be."""

    def __init__(self, work, small):
        self.small = small
        self.work = work
        self.folder = work / ("images-small" if small else "images")
        self.mount = self.folder / "xfs"
        self.reference = self.folder / "reference.raw"
        self.incompressible = self.folder / "incompressible.raw"
        self.wide = self.mount / "wide-16t.raw"
        self.scattered = self.mount / "scattered-1t.raw"
        self.million = self.mount / "million-16t.raw"
        self.million_pieces = 16384 if small else 1 << 20
        self.wide_pieces = 2048 if small else 65536
        self.scattered_pieces = 1024 if small else 32768

    def prepare(self, wanted):
        self.folder.mkdir(parents=True, exist_ok=True)
        if "reference" in wanted:
            self._make(self.reference, self._reference)
        if "incompressible" in wanted:
            self._make(self.incompressible, self._incompressible)
        if wanted & {"wide", "scattered", "million"}:
            self._mount_xfs()
        if "wide" in wanted:
            self._make(self.wide, self._wide)
        if "scattered" in wanted:
            self._make(self.scattered, self._scattered)
        if "million" in wanted:
            self._make(self.million, self._million)

    def release(self):
        """Unmounts what `prepare` mounted; the loop device goes with it."""
        if os.path.ismount(self.mount):
            subprocess.run(["umount", self.mount], check=True)

    def clean(self):
        for mount in (*self.work.glob("images*/xfs"), self.work / "memory"):
            if os.path.ismount(mount):
                subprocess.run(["umount", mount], check=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def describe(self):
        """Size, allocated bytes and number of extents of each image there is."""
        names = [self.reference, self.incompressible, self.wide, self.scattered, self.million]
        described = {}
        for path in names:
            if path.exists():
                ranges = extents(path)
                described[path.stem] = {
                    "size_bytes": path.stat().st_size,
                    "allocated_bytes": sum(length for _, length in ranges),
                    "extents": len(ranges),
                }
        return described

    def _make(self, path, maker):
        if path.exists():
            return
        say(f"making {path.name}")
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        maker(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.rename(path)

    def _reference(self, path):
        size, tree = (1 * GIB, "/usr/include") if self.small else (8 * GIB, "/usr")
        with open(path, "wb") as file:
            file.truncate(size)
        # Fixed identity and times: with the same tree the image comes out the same.
        identity = "5ea9a51e-0000-4000-8000-000000000001"
        seed = "hash_seed=5ea9a51e-0000-4000-8000-000000000002,lazy_itable_init=1,nodiscard"
        subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-U", identity, "-E", seed, "-d", tree, path],
            check=True, env=os.environ | {"E2FSPROGS_FAKE_TIME": "1700000000"},
        )

    def _incompressible(self, path):
        left = 256 * MIB if self.small else 4 * GIB
        source = noise("incompressible")
        with open(path, "wb") as file:
            while left:
                left -= file.write(source.stdout.read(min(left, MIB)))
        source.kill()
        source.wait()

    def _mount_xfs(self):
        """A sparse file with XFS on it: ext4 has no files of 16 TiB."""
        self.mount.mkdir(exist_ok=True)
        if os.path.ismount(self.mount):
            return
        backing = self.folder / "xfs.img"
        if not backing.exists():
            with open(backing, "wb") as file:
                file.truncate(16 * GIB)
            subprocess.run(["mkfs.xfs", "-q", backing], check=True)
        device = subprocess.run(
            ["losetup", "--find", "--show", "--direct-io=on", backing], check=True, stdout=subprocess.PIPE, text=True,
        ).stdout.strip()
        # Detached when unmounted: nothing is left behind.
        subprocess.run(["mount", device, self.mount], check=True)
        subprocess.run(["losetup", "--detach", device], check=True)

    def _wide(self, path):
        """One 64 KiB piece at a random place in each of 65,536 windows: 4 GiB in 16 TiB, each in a map leaf of its own."""
        self._scatter(path, 16 * TIB, self.wide_pieces, PIECE, "wide")

    def _scattered(self, path):
        """4 KiB in each of the 32,768 leaves of a 1 TiB map: the widest map for the least data."""
        self._scatter(path, TIB, self.scattered_pieces, 4 * KIB, "scattered")

    def _million(self, path):
        """4 KiB in each of 1,048,576 windows of 16 MiB: as many extents as a bad day makes."""
        self._scatter(path, 16 * TIB, self.million_pieces, 4 * KIB, "million")

    @staticmethod
    def _scatter(path, size, pieces, length, seed):
        source = noise(seed)
        for_places = random.Random(seed)
        window = size // pieces
        with open(path, "wb") as file:
            file.truncate(size)
            for number in range(pieces):
                place = number * window + for_places.randrange(window // length) * length
                os.pwrite(file.fileno(), source.stdout.read(length), place)
        source.kill()
        source.wait()


class Rewrite:
    """Aligned pieces overwritten with noise for the time of a `with` block, then put back."""

    def __init__(self, path, places, length, seed):
        self.path, self.places, self.length, self.seed = path, places, length, seed
        self.before = []

    @classmethod
    def share(cls, path, share, seed):
        """Random aligned 64 KiB pieces of the allocated ranges that add up to `share` of the allocated bytes."""
        ranges = extents(path)
        whole = [
            place for start, length in ranges
            for place in range(-(-start // PIECE) * PIECE, start + length - PIECE + 1, PIECE)
        ]
        count = round(sum(length for _, length in ranges) * share / PIECE)
        return cls(path, sorted(random.Random(f"rewrite {seed}").sample(whole, count)), PIECE, seed)

    @classmethod
    def pieces(cls, path, count, length, seed):
        """`count` of the allocated ranges, the first `length` bytes of each."""
        starts = [start for start, _ in extents(path)]
        return cls(path, sorted(random.Random(f"pieces {seed}").sample(starts, count)), length, seed)

    @property
    def total(self):
        return len(self.places) * self.length

    def __enter__(self):
        source = noise(f"rewrite {self.seed}")
        with open(self.path, "rb+") as file:
            for place in self.places:
                self.before.append(os.pread(file.fileno(), self.length, place))
                os.pwrite(file.fileno(), source.stdout.read(self.length), place)
            os.fsync(file.fileno())
        source.kill()
        source.wait()
        return self

    def __exit__(self, *_):
        with open(self.path, "rb+") as file:
            for place, bytes_before in zip(self.places, self.before):
                os.pwrite(file.fileno(), bytes_before, place)
            os.fsync(file.fileno())


def reflink(source, target):
    """Another file with the same blocks; it takes the place of an older one."""
    target.unlink(missing_ok=True)
    subprocess.run(["cp", "--reflink=always", source, target], check=True)
    return target


def write_pieces(path, count, length, seed):
    """Writes `count` aligned pieces of noise at random places; returns how many chunks they touch."""
    chooser = random.Random(f"write {seed}")
    places = sorted(chooser.sample(range(os.stat(path).st_size // length), count))
    source = noise(f"write {seed}")
    with open(path, "rb+") as file:
        for place in places:
            os.pwrite(file.fileno(), source.stdout.read(length), place * length)
        os.fsync(file.fileno())
    source.kill()
    source.wait()
    return len({place * length // CHUNK for place in places})


def add_piece(path, seed):
    """Writes 4 KiB of noise into a random hole; it stays, for it changes nothing that later runs measure."""
    taken = {start // CHUNK for start, _ in extents(path)}
    chooser = random.Random(f"piece {seed}")
    size = os.stat(path).st_size
    while (chunk := chooser.randrange(size // CHUNK)) in taken:
        pass
    source = noise(f"piece {seed}")
    with open(path, "rb+") as file:
        os.pwrite(file.fileno(), source.stdout.read(4 * KIB), chunk * CHUNK)
        os.fsync(file.fileno())
    source.kill()
    source.wait()


NOISE = f"openssl enc -aes-256-ctr -nosalt -K {hashlib.sha256(b'rbd').hexdigest()} -iv {'0' * 32} -in /dev/zero 2>/dev/null"

SIXTEENTHS = 16


def import_noise(cluster, image, size, written):
    """Makes an image of `size` bytes in sixteenths, each with noise at its start, `written` bytes in all: `rbd bench` with 16 threads
    gives each thread a sixteenth, so that all of them read nothing but noise."""
    noise, rest = written // SIXTEENTHS, (size - written) // SIXTEENTHS
    part = f"head -c {noise} && head -c {rest} /dev/zero"
    words = f"{NOISE} | for part in {{1..{SIXTEENTHS}}}; do {part}; done | rbd -c {cluster.conf} import --no-progress - {image}"
    subprocess.run(["bash", "-c", words], check=True, stderr=subprocess.PIPE)


def import_pieces(cluster, image, size, written, length, count):
    """Writes `count` aligned pieces of noise at random places among the written ones of an image, by a diff stream."""
    noise_pieces, all_pieces = (bytes_ // SIXTEENTHS // length for bytes_ in (written, size))
    places = sorted(random.Random("rbd").sample(range(written // length), count))
    source = noise("rbd pieces")
    stream = [b"rbd diff v1\n"]
    for place in places:
        at = (place // noise_pieces * all_pieces + place % noise_pieces) * length
        stream.append(b"w" + at.to_bytes(8, "little") + length.to_bytes(8, "little") + source.stdout.read(length))
    source.kill()
    source.wait()
    cluster.rbd("import-diff", "--no-progress", "-", image, input=b"".join([*stream, b"e"]))


def bench_rate(out):
    """Bytes per second that `rbd bench` tells at its end."""
    found = re.search(r"bytes/sec:\s+([0-9.]+)(?:\s*([KMG])iB/s)?", out)
    number, unit = float(found.group(1)), found.group(2)
    return number * {None: 1, "K": KIB, "M": MIB, "G": GIB}[unit]


def fio_log(path, log):
    """Writes an fio iolog that reads the allocated ranges of `path` once, in order, at most 1 MiB at a time."""
    with open(log, "w", encoding="ascii") as file:
        file.write(f"fio version 2 iolog\n{path} add\n{path} open\n")
        for start, length in extents(path):
            end = start + length
            while start < end:
                step = min(MIB - start % MIB, end - start)
                file.write(f"{path} read {start} {step}\n")
                start += step
        file.write(f"{path} close\n")
    return Path(log)
