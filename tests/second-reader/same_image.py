"""Owns the comparison of two large sparse images: reads only where either has data, for a hole holds zeros."""

import os
import sys

STEP = 1 << 20


def data_steps(path):
    """The numbers of the steps in which the file has data."""
    steps, at = set(), 0
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # no data up to the end
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            steps.update(range(at // STEP, (end - 1) // STEP + 1))
            at = end
    return steps


def main(first, second):
    if os.path.getsize(first) != os.path.getsize(second):
        return f"{first} and {second} differ in size"
    with open(first, "rb") as a, open(second, "rb") as b:
        for step in sorted(data_steps(first) | data_steps(second)):
            a.seek(step * STEP)
            b.seek(step * STEP)
            if a.read(STEP) != b.read(STEP):
                return f"{first} and {second} differ in the MiB at {step * STEP}"
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
