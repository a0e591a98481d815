"""Phases about garbage collection: what it costs, what it frees, and what it costs those who work beside it."""

import os
import shutil

from .images import GIB, KIB, MIB, write_pieces
from .measure import ratio, seconds
from .tools import last_json, remove, tree_bytes

# A volume that lived: every point rewrites so much of it, in aligned pieces of noise at random places.
POINTS, KEPT, PIECE = 24, 2, 64 * KIB
HEAVY, LIGHT = 0.06, 0.01


def beside_gc(lab, results):
    """First backup of noise while a point of the reference image is purged from the same repository, beside the same backup alone."""
    image, tools = lab.images.incompressible, lab.tools
    if not tools.snaphaul:
        return

    def alone(repeat):
        tools.snaphaul.init()
        return tools.snaphaul.backup("beside-gc", repeat, image)

    def beside(repeat):
        tools.snaphaul.init()
        forgotten = tools.snaphaul.backup("beside-gc-setup", repeat, lab.images.reference)
        tools.snaphaul.forget(forgotten.extra["point"])
        with tools.snaphaul.collecting():
            return tools.snaphaul.backup("beside-gc-purge", repeat, image)

    samples = lab.paired("beside-gc", [("alone", alone), ("snaphaul", beside)])
    alone, ours = samples["alone"], samples["snaphaul"]
    results.figure("backup beside gc, of the speed of one alone", ratio(alone, ours), "share", "at least 0.90", lambda v: v >= 0.9, beside=("alone", seconds(alone)), measured=seconds(ours))


def gc_mark(lab, results):
    """What a collection costs before it deletes: one volume of 16 TiB with 30 points, and many small volumes."""
    tools, folder = lab.tools, lab.runner.work / "gc-mark"
    remove(folder)
    lab.runner.quiet([tools.gc_mark, "prepare", folder])

    def mark(case, repeat, words):
        sample, out = lab.runner.run(case, "gc-mark", repeat, [tools.gc_mark, *words])
        sample.extra = last_json(out)
        return sample

    wide = [mark("gc-wide", repeat, ["wide", folder]) for repeat in range(1, lab.repeats + 1)]
    remove(folder)
    results.add_samples("gc-wide", {"gc-mark": wide})
    results.row("gc mark of 16 TiB × 30 points", [sample.extra["seconds"] for sample in wide], "s", "below 60", lambda v: v < 60)
    results.row("its peak memory", [sample.extra["peak_memory_bytes"] / MIB for sample in wide], "MiB", "below 128", lambda v: v < 128)
    results.row("its LIST requests", [sample.extra["list_requests"] for sample in wide], "", "at most 1,000", lambda v: v <= 1000)
    many = [mark(f"gc-many-{volumes}", 1, ["many", "--volumes", volumes]) for volumes in (100, 1000, 10000)]
    for sample in many:
        results.add_samples(f"gc-many-{sample.extra['volumes']}", {"gc-mark": [sample]})
        results.row(f"gc mark of {sample.extra['volumes']:,} volumes × 30 points", [sample.extra["seconds"]], "s", "none", None)
        results.row(f"peak memory of {sample.extra['volumes']:,} volumes × 30 points", [sample.extra["peak_memory_bytes"] / MIB], "MiB", "none", None)
    points = [(sample.extra["points"], sample.extra["seconds"], sample.extra["peak_memory_bytes"] / MIB) for sample in many]
    results.curve("gc-many", "Marking of many volumes with 30 points each", "points", "seconds", "peak MiB", points)


def gc_frees(lab, results):
    """The space that only dropped points used: how much of it two runs free, and how much they write for that. What the kept points
    need is what they take in a repository of their own."""
    tools = lab.tools
    if not tools.snaphaul:
        return
    for name, share in (("6 %", HEAVY), ("1 %", LIGHT)):
        # Random changes of 6 % make more dead than living data in the end. Of 1 %, most is living, and every segment holds some
        # of what is dead: freeing it writes more than it frees, so it stays unless `--thorough` asks for it.
        counts = share == HEAVY
        figures = collected(lab, f"gc-frees-{share}", share)
        about = f"{POINTS} points of random changes of {name}, {KEPT} kept"
        results.row(f"{about}: freed by one run", [figures["freed"][0]], "share", "none", None)
        results.row(f"{about}: freed by two runs", [figures["freed"][1]], "share", *(("at least 0.95", lambda v: v >= 0.95) if counts else ("none", None)))
        results.row(f"{about}: written, of the bytes the store shrank by", [figures["written"]], "share", "at most 1", lambda v: v <= 1)
        if not counts:
            results.row(f"{about}: freed by one run more, --thorough", [figures["freed"][2]], "share", "at least 0.95", lambda v: v >= 0.95)
        results.row(f"{about}: the first run", [figures["seconds"]], "s", "none", None)


def collected(lab, case, share):
    """A history, most of which is forgotten and collected twice."""
    tools, results = lab.tools, lab.results
    tools.snaphaul.init()
    image, points = history(lab, case, share)
    for point in points[:-KEPT]:
        tools.snaphaul.forget(point)
    own = tools.repositories / "own"
    tools.snaphaul.init(f"file://{own}")
    tools.snaphaul.copy_all(f"file://{own}")
    needed, _ = tree_bytes(own)
    remove(own)
    before, _ = tree_bytes(tools.snaphaul.repository())
    samples, freed = [], []
    for run, more in ((1, []), (2, []), (3, ["--thorough"])):
        samples.append(tools.snaphaul.collect(case, run, more))
        after, _ = tree_bytes(tools.snaphaul.repository())
        freed.append((before - after) / (before - needed))
        samples[-1].extra |= {"store_bytes_before": before, "store_bytes_after": after, "needed_bytes": needed}
    results.add_samples(case, {"snaphaul": samples})
    written = sum(sample.extra["written_bytes"] for sample in samples[:2])
    shrunk = max(before - samples[1].extra["store_bytes_after"], 1)
    tools.snaphaul.verify(f"{case}-check", 1, image)
    sample, target = tools.snaphaul.restore(f"{case}-check", 1, image)
    lab.runner.quiet(["cmp", image, target])
    remove(target)
    remove(image)
    return {"freed": freed, "written": written / shrunk, "seconds": samples[0].seconds}


def history(lab, case, share, size=None):
    """A volume of noise with `POINTS` points, each of which rewrites a share of it: its image as it is at the end, and the points."""
    image = lab.runner.work / "history.raw"
    size = size or (256 * MIB if lab.images.small else 2 * GIB)
    with open(lab.images.incompressible, "rb") as source, open(image, "wb") as target:
        shutil.copyfileobj(source, target, MIB)
        target.truncate(size)
    points = []
    for number in range(POINTS):
        if number:
            write_pieces(image, round(size * share / PIECE), PIECE, f"{case} {number}")
        points.append(lab.tools.snaphaul.backup_quietly(image))
    return image, points


def beside_rewrite(lab, results):
    """First backup of noise while sparse segments of the same repository are rewritten all the time, beside the same backup alone. The
    repository is the same each time: its files are linked, not copied, which no object ever notices."""
    image, tools = lab.images.incompressible, lab.tools
    if not tools.snaphaul:
        return
    repository, master = tools.snaphaul.repository(), tools.repositories / "master"
    tools.snaphaul.init()
    # So much that rewriting lasts longer than the backup.
    lived, points = history(lab, "beside-rewrite", HEAVY, image.stat().st_size)
    remove(lived)
    for point in points[:-KEPT]:
        tools.snaphaul.forget(point)
    repository.rename(master)

    def again():
        remove(repository)
        shutil.copytree(master, repository, copy_function=os.link)

    def alone(repeat):
        again()
        return tools.snaphaul.backup("beside-rewrite", repeat, image)

    def beside(repeat):
        again()
        with tools.snaphaul.rewriting():
            sample = tools.snaphaul.backup("beside-rewrite-gc", repeat, image)
        # What is left to be rewritten shows that there was something to do until the end.
        left = tools.snaphaul.collect("beside-rewrite-left", repeat)
        sample.extra["segments_left"] = left.extra["segments_rewritten"]
        return sample

    samples = lab.paired("beside-rewrite", [("alone", alone), ("snaphaul", beside)])
    remove(master)
    alone, ours = samples["alone"], samples["snaphaul"]
    if not all(sample.extra["segments_left"] for sample in ours):
        results.fail("beside-rewrite", "rewriting had ended before the backup did: it had nothing to do beside it")
    results.figure("backup beside rewriting, of the speed of one alone", ratio(alone, ours), "share", "at least 0.90", lambda v: v >= 0.9, beside=("alone", seconds(alone)), measured=seconds(ours))
