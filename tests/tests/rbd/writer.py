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
pool = None
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


def objects(name):
    """The objects of an image as a client writes them that knows of its snapshots."""
    direct = cluster.open_ioctx(pool)
    snapshots = sorted((snapshot["id"] for snapshot in image(name).list_snaps()), reverse=True)
    direct.set_self_managed_snap_write(snapshots)
    return direct, image(name).block_name_prefix()


def hide(name, number):
    # What a client leaves that discards an object of a clone and does not copy the parent into the snapshots first.
    direct, prefix = objects(name)
    direct.write_full(f"{prefix}.{int(number):016x}", b"")
    direct.close()


def reveal(name, number):
    direct, prefix = objects(name)
    direct.remove_object(f"{prefix}.{int(number):016x}")
    direct.close()


ORDERS = {
    "hide": hide,
    "reveal": reveal,
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
    global cluster, context, pool
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
