"""The phases: what is run, in which order, against which target.

Every phase runs its tools in turn, repeat by repeat, the order turning round each time, so that a slow minute of the
machine hits all of them. Owns: cases and targets (from the project's requirements). Must not: know command lines.
"""

import statistics
import subprocess
from dataclasses import dataclass

from . import bucket, ceph, cluster, collection, csi, images
from .images import CHUNK, KIB, MIB, TIB, Rewrite, add_piece, allocated, reflink, write_pieces
from .measure import ratio, seconds
from .tools import last_json, remove

PEERS = {"restic": 5.0, "borg": 2.0, "rustic": 2.3}
RESTORE_PEERS = {"restic": 3.4, "borg": 2.0}


@dataclass
class Lab:
    """What a phase works with."""

    runner: object
    tools: object
    images: object
    results: object
    repeats: int

    def paired(self, case, entries):
        """Runs every entry (name, function of the repeat) `repeats` times, in turn; keeps the samples by name."""
        samples = {name: [] for name, _ in entries}
        for repeat in range(1, self.repeats + 1):
            turn = (repeat - 1) % len(entries)
            for name, function in entries[turn:] + entries[:turn]:
                samples[name].append(function(repeat))
        self.results.add_samples(case, samples)
        return samples

    def with_snaphaul(self, function):
        return [("snaphaul", function)] if self.tools.snaphaul else []

    def drop(self):
        """Frees the disk for the next phase."""
        for folder in (self.tools.repositories, self.tools.targets):
            self.tools.fresh(folder)


def first(lab, results):
    """First backup of the reference image to a directory, against the probe and every peer."""
    image, tools = lab.images.reference, lab.tools

    def backup(tool):
        def once(repeat):
            tool.init()
            return tool.backup("first", repeat, image)
        return once

    entries = [(name, backup(tool)) for name, tool in tools.backup.items()]
    entries.append(("ceiling-probe", lambda repeat: tools.ceiling.backup("first", repeat, image)))
    samples = lab.paired("first", entries)
    ours, probe = samples.get("snaphaul"), samples["ceiling-probe"]
    if ours:
        results.row("first backup", seconds(ours), "s", "at most 6", lambda v: v <= 6, ("ceiling-probe", seconds(probe)))
        results.figure("first backup, of the ceiling probe's speed", ratio(probe, ours), "share", "at least 0.85", lambda v: v >= 0.85, beside=("ceiling-probe", seconds(probe)), measured=seconds(ours), probe=seconds(probe))
        for name, factor in PEERS.items():
            if name in samples:
                results.figure(f"first backup, times as fast as {name}", ratio(samples[name], ours), "×", f"at least {factor}", lambda v, f=factor: v >= f, beside=(name, seconds(samples[name])), measured=seconds(ours), probe=seconds(probe))
    results.plot("first", "First backup of the reference image, seconds", samples)


def incompressible(lab, results):
    """First backup of noise: the disk is the limit, then, with the repository in memory, its reading half."""
    image, tools = lab.images.incompressible, lab.tools
    size = image.stat().st_size

    def once(repeat):
        tools.snaphaul.init()
        return tools.snaphaul.backup("incompressible", repeat, image)

    entries = lab.with_snaphaul(once)
    entries.append(("fio read+write", lambda repeat: tools.fio.read_and_write("incompressible", repeat, image)))
    entries.append(("ceiling-probe", lambda repeat: tools.ceiling.backup("incompressible", repeat, image)))
    samples = lab.paired("incompressible", entries)
    if ours := samples.get("snaphaul"):
        fio = samples["fio read+write"]
        results.figure("incompressible, of fio reading and writing at once", ratio(fio, ours), "share", "at least 0.90", lambda v: v >= 0.9, beside=("fio read+write", seconds(fio)), measured=seconds(ours), probe=seconds(samples["ceiling-probe"]))
        puts = [sample.extra["put_requests"] / size * TIB for sample in ours]
        results.row("PUT requests per TiB backed up", puts, "", "at most 36,000", lambda v: v <= 36_000)
        restored, target = tools.snaphaul.restore("incompressible-restore", 1, image)
        compare(lab, image, target)
        results.add_samples("incompressible-restore", {"snaphaul": [restored]})
        gets = restored.extra["requests"].get("get")
        if gets is not None:
            results.row("GET requests per TiB restored", [gets / size * TIB], "", "at most 80,000", lambda v: v <= 80_000)
        else:
            results.fail("incompressible", "no GET counter in the metrics file")
    results.plot("incompressible", "First backup of 4 GiB of noise, seconds", samples)


def memory_repository(lab, results):
    """First backup of noise with the repository on tmpfs: the reading half and the processor alone."""
    image, tools = lab.images.incompressible, lab.tools
    folder = lab.runner.work / "memory"
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={image.stat().st_size + 1024 * MIB}", "tmpfs", folder], check=True)
    try:
        touch_memory(folder / "touched", image.stat().st_size + 512 * MIB)

        def once(repeat):
            tools.fresh(folder)
            tools.snaphaul.init(f"file://{folder}/repository")
            sample = tools.snaphaul.backup("tmpfs", repeat, image, f"file://{folder}/repository")
            tools.fresh(folder)
            return sample

        entries = lab.with_snaphaul(once)
        entries.append(("fio read", lambda repeat: tools.fio.read("tmpfs", repeat, image)))
        entries.append(("ceiling-probe", lambda repeat: tools.ceiling.backup("tmpfs", repeat, image, folder)))
        samples = lab.paired("tmpfs", entries)
    finally:
        subprocess.run(["umount", folder], check=True)
    if ours := samples.get("snaphaul"):
        fio = samples["fio read"]
        results.figure("incompressible to tmpfs, of fio's read speed", ratio(fio, ours), "share", "at least 0.85", lambda v: v >= 0.85, beside=("fio read", seconds(fio)), measured=seconds(ours), probe=seconds(samples["ceiling-probe"]))
    results.plot("tmpfs", "First backup of 4 GiB of noise to tmpfs, seconds", samples)


def touch_memory(path, size):
    """Fills and removes a file in memory. The pages of a virtual machine that nobody has used yet are given to it on their
    first touch, at 0.4 GB/s here: without this the tool that runs first would pay for all others."""
    block = bytes(range(256)) * 4096
    with open(path, "wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
    path.unlink()


def unchanged(lab, results):
    """Second backup with nothing changed and no hints: reads everything, stores nothing. Peers are told to read everything too."""
    image, tools = lab.images.reference, lab.tools
    for tool in tools.backup.values():
        tool.init()
        lab.results.add_samples("unchanged-setup", {tool.name: [tool.backup("unchanged-setup", 1, image)]})

    def again(tool):
        if tool is tools.snaphaul:
            return lambda repeat: tool.backup("unchanged", repeat, image)
        return lambda repeat: tool.backup("unchanged", repeat, image, again=True)

    entries = [(name, again(tool)) for name, tool in tools.backup.items()]
    entries.append(("fio read", lambda repeat: tools.fio.read("unchanged", repeat, image)))
    entries.append(("ceiling-probe", lambda repeat: tools.ceiling.read("unchanged", repeat, image)))
    samples = lab.paired("unchanged", entries)
    if ours := samples.get("snaphaul"):
        fio = samples["fio read"]
        results.figure("unchanged backup, times fio's read of the same extents", ratio(ours, fio), "×", "at most 1.11", lambda v: v <= 1.11, beside=("fio read", seconds(fio)), measured=seconds(ours), probe=seconds(samples["ceiling-probe"]))
    results.plot("unchanged", "Second backup, nothing changed, seconds", samples)


def incremental(lab, results):
    """1 % of the allocated bytes rewritten as aligned noise of 64 KiB; every repeat starts from the same first point."""
    image, tools = lab.images.reference, lab.tools
    if not tools.snaphaul:
        return
    tools.snaphaul.init()
    base = tools.snaphaul.backup("incremental-setup", 1, image)
    total = allocated(image)

    def once(repeat):
        with Rewrite.share(image, 0.01, repeat) as rewrite:
            sample = tools.snaphaul.backup("incremental", repeat, image, more=["--parent", base.extra["point"]])
        sample.extra |= {"rewritten_bytes": rewrite.total, "allocated_bytes": total}
        return sample

    entries = [("snaphaul", once), ("ceiling-probe", lambda repeat: tools.ceiling.read("incremental", repeat, image))]
    samples = lab.paired("incremental", entries)
    results.add_samples("incremental-setup", {"snaphaul": [base]})
    shares = [sample.extra["stored_bytes"] / total for sample in samples["snaphaul"]]
    results.row("stored after rewriting 1 % (share of allocated)", shares, "share", "at most 0.022", lambda v: v <= 0.022)
    results.row("backup after rewriting 1 %", seconds(samples["snaphaul"]), "s", "none", None, ("ceiling-probe", seconds(samples["ceiling-probe"])))


def restore(lab, results):
    """Restore of the reference image to a file that does not exist yet; the final flush is part of the time."""
    image, tools = lab.images.reference, lab.tools
    for tool in tools.backup.values():
        tool.init()
        lab.results.add_samples("restore-setup", {tool.name: [tool.backup("restore-setup", 1, image)]})
    tools.ceiling.store("restore-setup", image)

    def back(tool):
        def once(repeat):
            sample, target = tool.restore("restore", repeat, image)
            if repeat == 1 or tool is tools.snaphaul:
                compare(lab, image, target)
            remove(target)
            return sample
        return once

    entries = [(name, back(tool)) for name, tool in tools.backup.items()]
    entries.append(("qemu-img", lambda repeat: tools.qemu.copy("restore", repeat, image)))
    entries.append(("ceiling-probe", lambda repeat: tools.ceiling.restore("restore", repeat, image)))
    samples = lab.paired("restore", entries)
    if ours := samples.get("snaphaul"):
        probe, qemu = samples["ceiling-probe"], samples["qemu-img"]
        results.row("restore to a sparse file", seconds(ours), "s", "at most 5.5", lambda v: v <= 5.5, ("ceiling-probe", seconds(probe)))
        results.figure("restore, of the speed of qemu-img convert and a flush", ratio(qemu, ours), "share", "at least 0.70", lambda v: v >= 0.7, beside=("qemu-img", seconds(qemu)), measured=seconds(ours), probe=seconds(probe))
        for name, factor in RESTORE_PEERS.items():
            if name in samples:
                results.figure(f"restore, times as fast as {name}", ratio(samples[name], ours), "×", f"at least {factor}", lambda v, f=factor: v >= f, beside=(name, seconds(samples[name])), measured=seconds(ours), probe=seconds(probe))
    results.plot("restore", "Restore of the reference image, seconds", samples)


def wide(lab, results):
    """16 TiB with 4 GiB in scattered 64 KiB pieces: the map is the work."""
    image, tools = lab.images.wide, lab.tools
    if not tools.snaphaul:
        return
    sizes = []

    def once(repeat):
        tools.snaphaul.init()
        sample = tools.snaphaul.backup("wide-first", repeat, image)
        sizes.append(metadata_bytes(tools.snaphaul.repository()))
        return sample

    entries = [("snaphaul", once), ("ceiling-probe", lambda repeat: tools.ceiling.backup("wide-first", repeat, image))]
    samples = lab.paired("wide-first", entries)
    results.row("16 TiB sparse, first backup", seconds(samples["snaphaul"]), "s", "at most 20", lambda v: v <= 20, ("ceiling-probe", seconds(samples["ceiling-probe"])))
    results.row("16 TiB sparse, map and liveness of the point", [size / MIB for size in sizes], "MiB", "at most 32", lambda v: v <= 32)

    def again(repeat):
        return tools.snaphaul.backup("wide-unchanged", repeat, image)

    entries = [("snaphaul", again), ("ceiling-probe", lambda repeat: tools.ceiling.read("wide-unchanged", repeat, image))]
    samples = lab.paired("wide-unchanged", entries)
    results.row("16 TiB sparse, unchanged", seconds(samples["snaphaul"]), "s", "at most 15", lambda v: v <= 15, ("ceiling-probe", seconds(samples["ceiling-probe"])))

    def piece(repeat):
        add_piece(image, repeat)
        return tools.snaphaul.backup("wide-one-piece", repeat, image)

    entries = [("snaphaul", piece), ("ceiling-probe", lambda repeat: tools.ceiling.read("wide-one-piece", repeat, image))]
    samples = lab.paired("wide-one-piece", entries)
    results.row("16 TiB sparse, one new 4 KiB piece", seconds(samples["snaphaul"]), "s", "at most 15", lambda v: v <= 15, ("ceiling-probe", seconds(samples["ceiling-probe"])))


def verify(lab, results):
    """Checking every byte of a point beside restoring it: the same reads, no target."""
    image, tools = lab.images.reference, lab.tools
    if not tools.snaphaul:
        return
    tools.snaphaul.init()
    lab.results.add_samples("verify-setup", {"snaphaul": [tools.snaphaul.backup("verify-setup", 1, image)]})

    def back(repeat):
        sample, target = tools.snaphaul.restore("verify", repeat, image)
        remove(target)
        return sample

    entries = [
        ("snaphaul", lambda repeat: tools.snaphaul.verify("verify", repeat, image)),
        ("snaphaul restore", back),
    ]
    samples = lab.paired("verify", entries)
    checked, restored = samples["snaphaul"], samples["snaphaul restore"]
    results.figure("verify --level data, of the speed of a restore", ratio(restored, checked), "×", "at least 1.3", lambda v: v >= 1.3, beside=("restore", seconds(restored)), measured=seconds(checked))


def metadata_bytes(repository):
    """Bytes of map and liveness objects, by the class byte of their clear headers (mover/FORMAT.md)."""
    total = 0
    for path in repository.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                head = file.read(11)
            if head[:8] == b"SNAPHAUL" and head[10] in (7, 9):
                total += path.stat().st_size
    return total


def requests(lab, results):
    """100 scattered changes in 1 TiB whose map is as wide as a map of 1 TiB can be. Counted, so one run is enough."""
    image, tools = lab.images.scattered, lab.tools
    if not tools.snaphaul:
        return
    tools.snaphaul.init()
    base = tools.snaphaul.backup("requests-setup", 1, image)
    with Rewrite.pieces(image, 100, 4 * KIB, 1):
        sample = tools.snaphaul.backup("requests", 1, image)
    results.add_samples("requests-setup", {"snaphaul": [base]})
    results.add_samples("requests", {"snaphaul": [sample]})
    counted = sample.extra["requests"]
    if not counted:
        results.fail("requests", "no request counters in the metrics file")
        return
    results.row("requests of 100 scattered changes in 1 TiB", [sum(counted.values())], "", "at most 250", lambda v: v <= 250)
    results.row("LIST requests of the same", [counted.get("list", 0)], "", "at most 5", lambda v: v <= 5)


def reflinks(lab, results):
    """10,000 changes of 4 KiB in 1 TiB between two reflinks on XFS; and who says where 1,048,576 extents of 16 TiB are."""
    tools, images = lab.tools, lab.images
    if not tools.snaphaul:
        return
    base = reflink(images.scattered, images.mount / "reflink-0.raw")
    target = images.mount / "reflink-1.raw"
    tools.snaphaul.init()
    setup = tools.snaphaul.backup("reflink-setup", 1, base)
    results.add_samples("reflink-setup", {"snaphaul": [setup]})

    def once(repeat):
        chunks = write_pieces(reflink(images.scattered, target), 10_000, 4 * KIB, repeat)
        sample = tools.snaphaul.backup("reflink", repeat, target, more=["--parent", setup.extra["point"], "--base", base])
        sample.extra["changed_chunks_bytes"] = chunks * CHUNK
        return sample

    samples = lab.paired("reflink", [("snaphaul", once)])["snaphaul"]
    for sample in samples:
        if sample.extra["changed_blocks"] != "fiemap":
            results.fail("reflink", f"read by {sample.extra['changed_blocks']}: {sample.extra['changed_blocks_reason']}")
    results.row("10,000 changes in 1 TiB between reflinks", seconds(samples), "s", "at most 5", lambda v: v <= 5)
    shares = [sample.extra["read_bytes"] / sample.extra["changed_chunks_bytes"] for sample in samples]
    results.row("bytes read, times the changed chunks", shares, "×", "at most 1.3", lambda v: v <= 1.3)
    target.unlink()
    base.unlink()
    empty = images.mount / "empty-16t.raw"
    with open(empty, "wb") as file:
        file.truncate(16 * TIB)
    listed = [tools.snaphaul.changed("changed", repeat, images.million, empty) for repeat in range(1, lab.repeats + 1)]
    empty.unlink()
    results.add_samples("changed", {"snaphaul": listed})
    results.row("extents told of 16 TiB", [sample.extra["extents"] for sample in listed], "", "none", None)
    results.row("their list", seconds(listed), "s", "none", None)
    results.row("peak memory of it", [sample.peak_bytes / MIB for sample in listed], "MiB", "at most 64", lambda v: v <= 64)


def rbd(lab, results):
    """16 GiB of RBD with 12 GiB of noise, 1 % of it rewritten in 64 KiB between two snapshots; OSD and client share two cores."""
    tools, runner = lab.tools, lab.runner
    if not tools.snaphaul:
        return
    gib = 256 * MIB if lab.images.small else 1024 * MIB
    written, piece = 12 * gib, 64 * KIB
    with ceph.Ceph(runner.work / "ceph") as cluster:
        environment = {"CEPH_CONF": str(cluster.conf)}
        tools.snaphaul.more_environment = environment
        images.import_noise(cluster, "images/disk", 16 * gib, written)
        cluster.rbd("snap", "create", "--no-progress", "images/disk@0")
        tools.snaphaul.init()
        setup = tools.snaphaul.backup("rbd-setup", 1, "rbd:images/disk@0")
        results.add_samples("rbd-setup", {"snaphaul": [setup]})
        images.import_pieces(cluster, "images/disk", 16 * gib, written, piece, written // 100 // piece)
        cluster.rbd("snap", "create", "--no-progress", "images/disk@1")
        cluster.settle()
        parent = ["--parent", setup.extra["point"]]

        def exported(repeat):
            target = tools.fresh(tools.targets / "export") / "diff.zst"
            words = f"set -o pipefail; rbd -c {cluster.conf} export-diff --no-progress --from-snap 0 images/disk@1 - | zstd -q -1 -o {target}"
            return runner.run("rbd", "export-diff", repeat, ["bash", "-c", words], flush=target)[0]

        def read(repeat):
            sample, out = runner.run("rbd", "rbd-read", repeat, [tools.rbd_read, "rbd:images/disk@0"], env=environment)
            sample.extra = last_json(out)
            sample.seconds = sample.extra["seconds"] / sample.extra["bytes"] * 1024 * MIB
            return sample

        def bench(repeat):
            words = ["rbd", "-c", cluster.conf, "bench", "--io-type", "read", "--io-size", "1M", "--io-threads", "16", "--io-total", written, "images/disk"]
            sample, out = runner.run("rbd", "rbd-bench", repeat, words)
            sample.seconds = 1024 * MIB / images.bench_rate(out)
            return sample

        samples = lab.paired("rbd", [
            ("snaphaul", lambda repeat: tools.snaphaul.backup("rbd", repeat, "rbd:images/disk@1", more=parent)),
            ("snaphaul scan", lambda repeat: tools.snaphaul.backup("rbd-scan", repeat, "rbd:images/disk@0", more=[*parent, "--changed-blocks", "none"])),
            ("export-diff | zstd -1", exported), ("rbd-read", read), ("rbd bench", bench),
        ])
        # As large as the writes: nothing beside them is read and stored.
        tools.snaphaul.init(more=["--chunk-size", "64KiB"])
        fine_parent = ["--parent", tools.snaphaul.backup("rbd-fine-setup", 1, "rbd:images/disk@0").extra["point"]]
        fine = lab.paired("rbd-fine", [
            ("snaphaul", lambda repeat: tools.snaphaul.backup("rbd-fine", repeat, "rbd:images/disk@1", more=fine_parent)),
            ("export-diff | zstd -1", exported),
        ])
    tools.snaphaul.more_environment = {}
    ours, scan, export = samples["snaphaul"], samples["snaphaul scan"], samples["export-diff | zstd -1"]
    if any(sample.extra["changed_blocks"] != "rbd" for sample in ours):
        results.fail("rbd", f"read by {ours[0].extra['changed_blocks']}: {ours[0].extra['changed_blocks_reason']}")
    results.figure("RBD incremental, times as fast as the scan", ratio(scan, ours), "×", "at least 10", lambda v: v >= 10, beside=("scan", seconds(scan)), measured=seconds(ours))
    results.figure("RBD incremental, times as fast as export-diff | zstd -1", ratio(export, ours), "×", "at least 2", lambda v: v >= 2, beside=("export-diff", seconds(export)), measured=seconds(ours))
    fine_ours, fine_export = fine["snaphaul"], fine["export-diff | zstd -1"]
    results.figure("the same in chunks of 64 KiB", ratio(fine_export, fine_ours), "×", "none", lambda _: None, beside=("export-diff", seconds(fine_export)), measured=seconds(fine_ours))
    results.figure("RBD reader alone, of rbd bench", ratio(samples["rbd bench"], samples["rbd-read"]), "share", "at least 0.90", lambda v: v >= 0.9, beside=("rbd bench, s/GiB", seconds(samples["rbd bench"])), measured=seconds(samples["rbd-read"]))
    rate = [sample.extra["read_bytes"] / sample.seconds for sample in scan]
    share = statistics.median(mine * theirs / (1024 * MIB) for mine, theirs in zip(rate, seconds(samples["rbd bench"])))
    results.figure("RBD scan of an unchanged image, of rbd bench", share, "share", "at least 0.75", lambda v: v >= 0.75, beside=("rbd bench, s/GiB", seconds(samples["rbd bench"])), measured=seconds(scan))


def s3(lab, results):
    """First backup of noise to SeaweedFS on this machine, beside 8 parallel PUTs of prepared 32 MiB buffers."""
    image, tools = lab.images.incompressible, lab.tools
    size = image.stat().st_size
    samples = {"put-probe": []} | ({"snaphaul": []} if tools.snaphaul else {})
    for repeat in range(1, lab.repeats + 1):
        # A fresh server each time: volumes that fill up would slow the later runs.
        with bucket.SeaweedFs(lab.runner, lab.runner.work / "seaweed") as server:
            entries = [("put-probe", lambda: server.put_probe(tools.put_probe, repeat, size))]
            if tools.snaphaul:
                entries.append(("snaphaul", lambda: server.backup(tools.snaphaul, repeat, image)))
            for name, function in entries if repeat % 2 else reversed(entries):
                samples[name].append(function())
    lab.results.add_samples("s3", samples)
    if ours := samples.get("snaphaul"):
        shares = [
            (mine.extra["stored_bytes"] / mine.seconds) / (probe.extra["bytes"] / probe.seconds)
            for mine, probe in zip(ours, samples["put-probe"])
        ]
        results.figure("S3, of 8 parallel PUTs of prepared buffers", statistics.median(shares), "share", "at least 0.85", lambda v: v >= 0.85, beside=("put-probe", seconds(samples["put-probe"])), measured=seconds(ours))
    results.plot("s3", "4 GiB of noise to SeaweedFS, seconds", samples)


def memory(results):
    """Peak memory over all cases that were run."""
    peaks = results.peaks("snaphaul")
    if peaks:
        worst = max(peaks, key=lambda pair: pair[1])
        results.row(f"peak memory (worst of {len(peaks)} runs: {worst[0]})", [worst[1] / MIB], "MiB", "at most 400", lambda v: v <= 400)


def compare(lab, image, target):
    """A restore that is fast and wrong is no result."""
    lab.runner.quiet(["cmp", image, target])


def cleaned(phase):
    def run(lab, results):
        lab.drop()
        try:
            phase(lab, results)
        finally:
            lab.drop()
    return run


ALL = {
    "first": cleaned(first),
    "incompressible": cleaned(incompressible),
    "tmpfs": cleaned(memory_repository),
    "unchanged": cleaned(unchanged),
    "incremental": cleaned(incremental),
    "restore": cleaned(restore),
    "verify": cleaned(verify),
    "beside-gc": cleaned(collection.beside_gc),
    "gc": cleaned(collection.gc_mark),
    "gc-frees": cleaned(collection.gc_frees),
    "beside-rewrite": cleaned(collection.beside_rewrite),
    "wide": cleaned(wide),
    "requests": cleaned(requests),
    "reflink": cleaned(reflinks),
    "rbd": cleaned(rbd),
    "s3": cleaned(s3),
    "cluster": cleaned(cluster.cluster),
    "csi": cleaned(csi.csi),
}

IMAGES = {
    "first": "reference", "unchanged": "reference", "incremental": "reference", "restore": "reference",
    "verify": "reference", "beside-gc": "incompressible reference", "gc": "",
    "gc-frees": "incompressible", "beside-rewrite": "incompressible",
    "incompressible": "incompressible", "tmpfs": "incompressible", "s3": "incompressible",
    "wide": "wide", "requests": "scattered", "reflink": "scattered million", "rbd": "", "cluster": "", "csi": "",
}


def images_of(names):
    """The images these phases need."""
    return {image for name in names for image in IMAGES[name].split()}
