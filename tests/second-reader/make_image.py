"""Owns the test images: sparse, with random, repetitive, repeated and zero chunks at seeded places."""

import random
import sys

PIECE = 65_536


def change(path, size, seed, pieces):
    """Sets the size of the image and overwrites `pieces` chunks of it, always with the first, the last and a run."""
    rng = random.Random(seed)
    with open(path, "a"):
        pass
    with open(path, "r+b") as image:
        image.truncate(size)
        last = max(size - 1, 0) // PIECE
        run = rng.randrange(last + 1)
        places = [0, last, *range(run, run + pieces // 2), *(rng.randrange(last + 1) for _ in range(pieces // 2))]
        for i, place in enumerate(places):
            data = (
                rng.randbytes(PIECE),
                b"%08d snaphaul " % rng.randrange(10**8) * (PIECE // 18 + 1),
                b"the same in every place ".ljust(PIECE, b"."),
                rng.randbytes(PIECE // 4) + bytes(PIECE * 3 // 4),
                bytes(PIECE),
            )[i % 5][:PIECE]
            image.seek(place * PIECE)
            image.write(data[: max(0, size - place * PIECE)])


if __name__ == "__main__":
    change(sys.argv[1], *map(int, sys.argv[2:5]))
