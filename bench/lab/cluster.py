"""The product in a cluster: what it costs when idle, how soon it reads, what a holder costs, and thousands of resources.

Owns: the figures and their targets. Must not: start a cluster (`cluster-figures` of the tests does).
"""

import os
from pathlib import Path

from .images import GIB, MIB
from .measure import last_json
from .tools import build

# Of the agent's container in manifests/base/agent.yaml.
AGENT_LIMIT = 2 * GIB


def cluster(lab, results):
    """One run of each; a run has its repeats inside, since the cluster is what takes time."""
    tools = lab.tools
    if not tools.snaphaul:
        return
    # It waits for others: only the program that it starts is optimised.
    program = build(["-p", "tests", "--bins"], profile="dev") / "cluster-figures"
    lab.runner.aliases[str(program)] = program.name
    cache = os.environ.get("SNAPHAUL_CACHE", Path.home() / ".cache" / "snaphaul")
    environment = {"SNAPHAUL_BIN": str(tools.snaphaul.binary), "SNAPHAUL_CACHE": str(cache)}
    small = ["--small"] if lab.images.small else []

    def figures(what):
        sample, out = lab.runner.run("cluster", what, 1, [program, what, *small], env=environment)
        sample.extra = last_json(out)
        results.add_samples(f"cluster-{what}", {"cluster-figures": [sample]})
        return sample.extra

    held = figures("holder")
    results.figure("reading through a holder's descriptor, of the bare device", held["speed_of_bare"], "share", "at least 0.97", lambda v: v >= 0.97, beside=("bare device", held["bare_seconds"]), measured=held["held_seconds"])
    soon = figures("first-byte")
    own = [one["own_seconds"] for one in soon["rounds"][1:]]
    results.row("resource made to first byte read, without snapshot and clone", own, "s", "at most 2", lambda v: v <= 2)
    results.row("the slowest of them", [max(own)], "s", "at most 2", lambda v: v <= 2)
    idle = figures("idle")
    results.row("idle agent, resident", [idle["agent_bytes"] / MIB], "MiB", "at most 40", lambda v: v <= 40)
    results.row("idle agent, requests to the API server", [idle["agent_requests_per_second"]], "1/s", "at most 1", lambda v: v <= 1)
    results.row("idle controller, resident", [idle["controller_bytes"] / MIB], "MiB", "none", None)
    results.row("idle controller, requests to the API server", [idle["controller_requests_per_second"]], "1/s", "none", None)
    work = figures("working")
    results.row(f"agent with {work['volumes']} volumes of {work['volume_bytes'] // MIB} MiB at once, peak", [work["agent_peak_bytes"] / MIB], "MiB", "at most 2048, its manifest's limit", lambda v: v * MIB <= AGENT_LIMIT)
    many = figures("many")
    results.row(f"controller beside {many['resources']:,} resources, peak", [many["controller_peak_bytes"] / MIB], "MiB", "at most 200", lambda v: v <= 200)
    results.row("its start to the first status of a new resource", [many["start_up_seconds"]], "s", "at most 10", lambda v: v <= 10)
