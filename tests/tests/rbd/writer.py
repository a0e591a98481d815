"""Changes RBD images as an ordinary client would: one order a line on standard input, one answer a line.

Owns: Ceph's own Python binding, so that what the tests compare was not written by the code under test.
"""

import random
import sys

import rados
import rbd

# Image names to open images; one handle each, as a running machine has.
opened = {}
cluster = None
context = None


def image(name):
    if name not in opened:
        opened[name] = rbd.Image(context, name)
    return opened[name]


def close(name):
    if name in opened:
        opened.pop(name).close()


def clone(parent, snapshot, child, features, order):
    rbd.RBD().clone(context, parent, snapshot, context, child, features=int(features), order=int(order))


def trash_snapshot(name, snapshot):
    # With clones of format 2 a snapshot that is still needed moves to the trash.
    image(name).remove_snap(snapshot)


ORDERS = {
    "create": lambda name, size, order, features, unit, count: rbd.RBD().create(
        context, name, int(size), order=int(order), old_format=False, features=int(features),
        stripe_unit=int(unit), stripe_count=int(count)),
    "write": lambda name, offset, length, seed: image(name).write(
        random.Random(int(seed)).randbytes(int(length)), int(offset)),
    "discard": lambda name, offset, length: image(name).discard(int(offset), int(length)),
    "zero": lambda name, offset, length: image(name).write_zeroes(int(offset), int(length)),
    "resize": lambda name, size: image(name).resize(int(size)),
    "snapshot": lambda name, snapshot: image(name).create_snap(snapshot),
    "rollback": lambda name, snapshot: image(name).rollback_to_snap(snapshot),
    "remove_snapshot": trash_snapshot,
    "rename_snapshot": lambda name, old, new: image(name).rename_snap(old, new),
    "clone": clone,
    "flatten": lambda name: image(name).flatten(),
    "flush": lambda name: image(name).flush(),
    "close": close,
    "remove": lambda name: (close(name), rbd.RBD().remove(context, name)),
    "trash": lambda name: (close(name), rbd.RBD().trash_move(context, name, 0)),
}


def main():
    global cluster, context
    conf, pool, granularity = sys.argv[1:]
    options = {
        "rbd_default_clone_format": "2",
        "rbd_discard_granularity_bytes": granularity,
        "rbd_skip_partial_discard": "true" if granularity == "65536" else "false",
    }
    cluster = rados.Rados(conffile=conf, conf=options)
    cluster.connect()
    context = cluster.open_ioctx(pool)
    for line in sys.stdin:
        order, *arguments = line.rstrip("\n").split("\t")
        try:
            ORDERS[order](*arguments)
            print("ok", flush=True)
        except Exception as error:  # The test decides what a refusal means.
            print(f"refused: {error!r}", flush=True)
    for name in list(opened):
        close(name)
    context.close()
    cluster.shutdown()


main()
