"""Runs one command as an experiment: cold caches, wall time, memory, raw output kept and scrubbed.

Owns: the raw directory. Must not: know what a command means.
"""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


@dataclass
class Sample:
    """One run of one tool. `seconds` is the wall time a user waits, or what the tool itself reports where that is fairer to it."""

    tool: str
    repeat: int
    seconds: float
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    extra: dict = field(default_factory=dict)


class CommandFailed(Exception):
    """A measured command ended with an error."""


class Runner:
    """Starts commands and keeps what they print under `raw`."""

    def __init__(self, raw, work):
        self.raw = raw
        self.work = work
        self.home = work / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        raw.mkdir(parents=True, exist_ok=True)
        # Longest first, so that the host's full name does not leave its domain behind.
        self.secrets = sorted({socket.gethostname(), socket.getfqdn(), os.uname().nodename}, key=len, reverse=True)
        # What committed output calls the folders and binaries of this machine; longest first, so that none hides another.
        self.aliases = {str(work): "$WORK", str(Path(__file__).resolve().parents[2]): "."}

    def environment(self, extra=None):
        """A bare environment: no configuration of the person who runs this leaks in."""
        base = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8", "TMPDIR": str(self.work)}
        return base | (extra or {})

    def scrub(self, text):
        """Takes names of the machine and of its folders out of what is committed."""
        for path in sorted(self.aliases, key=len, reverse=True):
            text = text.replace(path, self.aliases[path])
        for secret in self.secrets:
            if secret and secret != "localhost":
                text = re.sub(rf"\b{re.escape(secret)}\b", "HOST", text)
        return text

    def keep(self, name, text):
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.scrub(text))

    def cool(self):
        """Everything on the disk, nothing in the cache, the disk idle for a moment."""
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        time.sleep(1.0)

    def run(self, case, tool, repeat, command, env=None, cwd=None, flush=None):
        """Runs `command` cold; with `flush`, a file whose fsync belongs to the measured time. Returns the sample and stdout."""
        command = [str(word) for word in command]
        stem = f"{case}/{tool}-{repeat}"
        timing = self.work / "time.txt"
        self.cool()
        start = time.monotonic()
        done = subprocess.run(
            ["/usr/bin/time", "-v", "-o", timing, *command],
            env=self.environment(env), cwd=cwd or self.work, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", check=False,
        )
        if flush is not None and done.returncode == 0:
            descriptor = os.open(flush, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        seconds = time.monotonic() - start
        report = timing.read_text()
        head = f"$ {' '.join(command)}\nexit {done.returncode}, {seconds:.3f} s"
        head += f", fsync of {flush} included\n" if flush else "\n"
        self.keep(f"{stem}.txt", head + "--- stdout\n" + done.stdout + "--- stderr\n" + done.stderr + "--- time -v\n" + report)
        if done.returncode != 0:
            raise CommandFailed(f"{tool} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
        sample = Sample(tool, repeat, seconds, *resources(report))
        say(f"  {case} {tool} #{repeat}: {seconds:.2f} s, {sample.cpu_seconds:.1f} CPU-s, {sample.peak_bytes >> 20} MiB")
        return sample, done.stdout

    def quiet(self, command, env=None, check=True):
        """Runs a command that is not measured; returns its stdout."""
        done = subprocess.run(
            [str(word) for word in command], env=self.environment(env), cwd=self.work, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", check=False,
        )
        if check and done.returncode != 0:
            raise CommandFailed(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
        return done.stdout


def resources(report):
    """CPU seconds and peak resident bytes from the output of GNU time -v."""
    def number(label):
        return float(re.search(rf"{re.escape(label)}: ([0-9.]+)", report).group(1))

    cpu = number("User time (seconds)") + number("System time (seconds)")
    return cpu, int(number("Maximum resident set size (kbytes)")) * 1024


def last_json(text):
    """The last line of a stream of JSON lines."""
    return json.loads(text.strip().splitlines()[-1])


def seconds(samples):
    return [sample.seconds for sample in samples or []]


def ratio(dividend, divisor):
    """Median over the repeats of the one sample's seconds divided by the other's: drift between repeats cancels out."""
    return statistics.median(a / b for a, b in zip(seconds(dividend), seconds(divisor)))
