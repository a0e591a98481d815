"""What was measured on: machine, kernel, tools, commit. No names of machines or people.

Owns: the facts printed beside the figures. Must not: measure.
"""

import os
import re
import subprocess
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]


def output(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False, cwd=TREE)
    return done.stdout.strip()


class Machine:
    """Facts, gathered once at the start."""

    def __init__(self, runner, tools, images, options):
        uname = os.uname()
        lscpu = output("lscpu")
        model = re.search(r"Model name:\s*(.+)", lscpu)
        memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
        self.facts = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernel": f"{uname.sysname} {uname.release} {uname.machine}",
            "cpu": model.group(1) if model else uname.machine,
            "cpus": os.cpu_count(),
            "memory_bytes": int(memory.group(1)) * 1024,
            "file_system": output("findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(options.work)),
            "commit": output("git", "rev-parse", "HEAD"),
            "tree_clean": output("git", "status", "--porcelain", "--untracked-files=no") == "",
            "load_at_start": os.getloadavg()[0],
        }
        versions = {name: tool.version() for name, tool in tools.backup.items()}
        versions |= {"fio": tools.fio.version(), "qemu-img": tools.qemu.version()}
        versions["rustc"] = output("rustc", "--version")
        self.facts["versions"] = {name: re.sub(r"\s+", " ", version) for name, version in versions.items()}
        self.facts["images"] = images.describe()
        runner.keep("lscpu.txt", lscpu + "\n")
        runner.keep("uname.txt", self.facts["kernel"] + " " + uname.version + "\n")
        runner.keep("versions.txt", "".join(f"{name}: {version}\n" for name, version in self.facts["versions"].items()))
