"""Backups through a CSI driver: what of the time from a snapshot to its first byte is ours, and what stays.

Owns: the figures and their targets. Must not: start a driver (`csi-figures` of the tests does).
"""

import os

from .measure import last_json
from .tools import build


def csi(lab, results):
    """One run, which has its hundred snapshots inside."""
    tools = lab.tools
    if not tools.snaphaul:
        return
    # It waits for others: only the program that it starts is optimised.
    program = build(["-p", "tests", "--bins"], profile="dev") / "csi-figures"
    lab.runner.aliases[str(program)] = program.name
    environment = {"SNAPHAUL_BIN": str(tools.snaphaul.binary)}
    hostpath = os.environ.get("SNAPHAUL_HOSTPATHPLUGIN")
    if hostpath:
        lab.runner.aliases[hostpath] = "hostpathplugin"
        environment["SNAPHAUL_HOSTPATHPLUGIN"] = hostpath
    small = ["--small"] if lab.images.small else []
    sample, out = lab.runner.run("csi", "in-a-row", 1, [program, *small], env=environment)
    sample.extra = last_json(out)
    results.add_samples("csi-in-a-row", {"csi-figures": [sample]})
    for driver in sample.extra["drivers"]:
        name, own = driver["driver"], driver["own"]
        what = f"{name} driver, {driver['rounds']} in a row: snapshot to first byte, ours"
        results.row(f"{what}, median", [own["median_seconds"]], "s", "at most 0.3", lambda v: v <= 0.3)
        results.row(f"{what}, 95th percentile", [own["p95_seconds"]], "s", "at most 0.3", lambda v: v <= 0.3)
        results.row(f"{what}, worst", [own["worst_seconds"]], "s", "at most 0.3", lambda v: v <= 0.3)
        results.row(f"{name} driver: snapshots that stay", [driver["snapshots_left"]], "", "1", lambda v: v == 1)
        others = driver["others_left"] + driver["journals_left"]
        results.row(f"{name} driver: whatever else stays", [others], "", "0", lambda v: v == 0)
