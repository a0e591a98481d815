"""Owns the command line: reads one point of a repository directory into a sparse file, from the specification alone."""

import argparse
import sys
from pathlib import Path

from container import ReaderError
from point import Point
from repository import Repository, Secret


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", help="directory of the repository")
    parser.add_argument("point", help="id, unique beginning of an id, or NAME@latest")
    parser.add_argument("output", type=Path, help="file to make")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--passphrase-file", type=Path, help="one trailing newline is dropped")
    secret.add_argument("--key-file", type=Path)
    return parser.parse_args()


def read_secret(args):
    if args.passphrase_file:
        return Secret(0, args.passphrase_file.read_bytes().removesuffix(b"\n").removesuffix(b"\r"))
    if args.key_file:
        return Secret(1, args.key_file.read_bytes())
    return None


def say(message):
    print(f"read_point: {message}", file=sys.stderr)


def main():
    args = arguments()
    try:
        repository = Repository(args.repository, read_secret(args), say)
        point = Point(repository, repository.resolve(args.point))
        with open(args.output, "xb") as file:
            try:
                written = point.write(file)
            except BaseException:
                args.output.unlink()
                raise
    except (ReaderError, OSError) as error:
        say(error)
        return 1
    print(
        f"{point.point.id} of {point.volume}: {point.size} bytes, {written} of them data, "
        f"map of depth {point.depth}, chunks of {repository.chunk_size}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
