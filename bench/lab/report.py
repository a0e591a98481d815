"""Collects samples and rows; writes results.json, README.md and the plots of one run.

Owns: the run's directory. Must not: decide targets.
"""

import json
import statistics
import subprocess
import time
from dataclasses import asdict


def new_directory(parent):
    """`<date>-<n>` with the first free n."""
    date = time.strftime("%Y-%m-%d")
    number = 1
    while (directory := parent / f"{date}-{number}").exists():
        number += 1
    directory.mkdir(parents=True)
    return directory


def shown(value, unit):
    if value is None:
        return "–"
    if unit == "share":
        return f"{value * 100:.2f} %" if value < 0.1 else f"{value * 100:.0f} %"
    if unit == "":
        return f"{value:,.0f}"
    if unit in ("s", "×"):
        return f"{value:.2f} {unit}"
    return f"{value:.1f} {unit}"


class Results:
    """Everything measured so far; written after every phase, so that a broken run keeps what it has."""

    def __init__(self, directory, machine, options):
        self.directory, self.machine, self.options = directory, machine, options
        self.rows, self.samples, self.failures, self.plots = [], {}, [], []

    def add_samples(self, case, samples):
        for name, many in samples.items():
            self.samples.setdefault(case, {}).setdefault(name, []).extend(many)

    def row(self, what, values, unit, target, holds, ceiling=None):
        """A figure that is measured itself; its ratio is ceiling / measured."""
        value = statistics.median(values)
        limit = statistics.median(ceiling[1]) if ceiling else None
        self.rows.append({
            "what": what, "value": value, "unit": unit, "all": values, "measured_seconds": value if unit == "s" else None,
            "beside": ceiling[0] if ceiling else None, "beside_seconds": limit, "ratio": limit / value if limit else None,
            "probe_seconds": limit, "target": target, "met": holds(value) if holds else None,
        })

    def figure(self, what, value, unit, target, holds, beside, measured=None, probe=None):
        """A figure that is a ratio already."""
        self.rows.append({
            "what": what, "value": value, "unit": unit, "all": None,
            "measured_seconds": statistics.median(measured) if measured else None,
            "beside": beside[0], "beside_seconds": statistics.median(beside[1]), "ratio": value,
            "probe_seconds": statistics.median(probe) if probe else None, "target": target, "met": holds(value),
        })

    def fail(self, phase, error):
        self.failures.append({"phase": phase, "error": str(error)})

    def peaks(self, tool):
        return [(case, sample.peak_bytes) for case, by_tool in self.samples.items() for sample in by_tool.get(tool, [])]

    def plot(self, name, title, samples):
        """A bar per tool (median) with a whisker from the fastest to the slowest repeat."""
        lines = []
        for number, (tool, many) in enumerate(samples.items()):
            values = [sample.seconds for sample in many]
            lines.append(f'{number} "{tool}" {statistics.median(values):.3f} {min(values):.3f} {max(values):.3f}')
        script = f"""set terminal svg size 640,{80 + 60 * len(lines)} dynamic enhanced font "sans,13" background "#ffffff"
set output "{self.directory / (name + '.svg')}"
set title "{title}" noenhanced
set style fill solid 0.85 noborder
set xrange [0:{1.12 * max(sample.seconds for many in samples.values() for sample in many):.3f}]
set yrange [{len(lines) - 0.4}:-0.6]
set grid x
unset key
set lmargin 16
$data << end
{chr(10).join(lines)}
end
plot $data using (0):1:(0):3:($1-0.3):($1+0.3):ytic(2) with boxxyerror lc rgb "#3b6ea5", \\
     $data using 3:1:4:5 with xerrorbars lc rgb "#222222" pt 0 lw 1.5, \\
     $data using 3:1:(sprintf("  %.2f", $3)) with labels left offset 0.3,0.7 font ",11"
"""
        subprocess.run(["gnuplot"], input=script, text=True, check=True)
        self.plots.append(name)

    def curve(self, name, title, along, left, right, points):
        """Two quantities over a third, both axes logarithmic: what grows how."""
        rows = "\n".join(" ".join(f"{value:.6g}" for value in point) for point in points)
        script = f"""set terminal svg size 640,400 dynamic enhanced font "sans,13" background "#ffffff"
set output "{self.directory / (name + '.svg')}"
set title "{title}" noenhanced
set logscale xy
set logscale y2
set xlabel "{along}"
set ylabel "{left}"
set y2label "{right}"
set ytics nomirror
set y2tics
set grid
set key left top
$data << end
{rows}
end
plot $data using 1:2 with linespoints lw 2 pt 7 lc rgb "#3b6ea5" title "{left}", \\
     $data using 1:3 axes x1y2 with linespoints lw 2 pt 5 lc rgb "#a5603b" title "{right}"
"""
        subprocess.run(["gnuplot"], input=script, text=True, check=True)
        self.plots.append(name)

    def write(self):
        document = {
            "machine": self.machine.facts,
            "repeats": self.options.repeats,
            "small": self.options.small,
            "rows": self.rows,
            "failures": self.failures,
            "samples": {case: {tool: [asdict(one) for one in many] for tool, many in by_tool.items()} for case, by_tool in self.samples.items()},
        }
        (self.directory / "results.json").write_text(json.dumps(document, indent=1) + "\n")
        (self.directory / "README.md").write_text(self.markdown())

    def markdown(self):
        facts = self.machine.facts
        lines = [f"# Results of {facts['started']}", ""]
        if self.options.small:
            lines += ["**Small images: this run checks the harness, its figures mean nothing.**", ""]
        lines += [
            f"{facts['cpus']} × {facts['cpu']}, {facts['memory_bytes'] / 2**30:.0f} GiB, {facts['kernel']}, {facts['file_system']}; "
            f"load {facts['load_at_start']:.1f} at the start; medians of {self.options.repeats} paired runs.",
            f"Commit {facts['commit']}{'' if facts['tree_clean'] else ' with local changes'}. " + ", ".join(facts["versions"].values()) + ".",
            "What the columns mean and how it is measured: `bench/README.md`. Every command line and its output: `raw/`.", "",
            "| what | result | target | met | snaphaul | beside | its time | ceiling probe | ratio |", "| --- | ---: | --- | --- | ---: | --- | ---: | ---: | ---: |",
        ]
        for row in self.rows:
            met = {True: "yes", False: "**no**", None: "–"}[row["met"]]
            ratio = shown(row["ratio"], "×") if row["ratio"] else "–"
            lines.append(
                f"| {row['what']} | {shown(row['value'], row['unit'])} | {row['target']} | {met} | {shown(row['measured_seconds'], 's')} "
                f"| {row['beside'] or '–'} | {shown(row['beside_seconds'], 's')} | {shown(row['probe_seconds'], 's')} | {ratio} |"
            )
        lines += ["", "| case | tool | seconds (each run) | CPU-s | peak MiB |", "| --- | --- | --- | ---: | ---: |"]
        for case, by_tool in self.samples.items():
            for tool, many in by_tool.items():
                each = " ".join(f"{sample.seconds:.2f}" for sample in many)
                cpu = statistics.median(sample.cpu_seconds for sample in many)
                lines.append(f"| {case} | {tool} | {each} | {cpu:.1f} | {max(sample.peak_bytes for sample in many) >> 20} |")
        lines += [""] + [f"![{name}]({name}.svg)" for name in self.plots]
        for failure in self.failures:
            lines.append(f"\nPhase {failure['phase']} failed: {failure['error']}")
        return "\n".join(lines) + "\n"
