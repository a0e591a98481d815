"""Owns one point: its manifest, its liveness, the walk over its map and the bytes of its volume."""

import struct
from collections import Counter
from functools import lru_cache

import cbor2
from blake3 import blake3

import container as c
from container import Damaged, field, parse_cbor

PLACES = 256
MAX_MANIFEST = 262_144
MAX_PAGE = 16_384


class Point:
    """A point whose manifest and liveness were checked."""

    def __init__(self, repository, name):
        self.repo, self.keys, self.point = repository, repository.keys, name
        self.name, record = repository.manifest(name)
        self._read_manifest(record)
        self.live = self._read_liveness()
        self.used = Counter()
        self.segment = lru_cache(maxsize=64)(self._open_segment)

    def _read_manifest(self, record):
        name, chunk_size = self.name, self.repo.chunk_size
        if len(record) > MAX_MANIFEST:
            raise Damaged(name, "manifest too long")
        fields = parse_cbor(record, name)
        if type(fields) is not dict:
            raise Damaged(name, "manifest is not a map")
        if field(fields, 0, int, name):
            raise c.Newer(name, f"feature set {fields[0]:#x} of the point")
        key = [bytes.fromhex(self.point.volume), self.point.seq, bytes.fromhex(self.point.session)]
        if field(fields, 1, list, name) != key:
            raise Damaged(name, "it is the manifest of another point")
        self.volume = field(fields, 2, str, name, length=200)
        if not self.volume or self.keys.digest(self.volume.encode()) != key[0]:
            raise Damaged(name, "volume name and volume id do not fit")
        self.size = field(fields, 4, int, name)
        self.chunks = -(-self.size // chunk_size)
        if field(fields, 5, int, name) != chunk_size:
            raise Damaged(name, "its chunk size is not that of the repository")
        self.depth = 1
        while PLACES**self.depth < self.chunks:
            self.depth += 1
        if field(fields, 6, int, name) != self.depth:
            raise Damaged(name, "wrong depth of the map")
        self.root = None
        if 7 in fields:
            match fields[7]:
                case [bytes(page_hash), [bytes(session), int(number)], int(ordinal)] if (
                    len(page_hash) == 32 and len(session) == 16 and 0 <= number < 2**32 and 0 <= ordinal < 2**16
                ):
                    self.root = page_hash, (session, number), ordinal
                case _:
                    raise Damaged(name, "wrong root of the map")
        self.live_len = field(fields, 8, int, name)
        self.live_hash = field(fields, 9, bytes, name, length=32)
        field(fields, 10, int, name)
        field(fields, 11, int, name, high=2)
        half = self.root[0][:16] if self.root else bytes(16)
        content = c.keyed(self.keys.content, b"\xff" + struct.pack("<QI", self.size, chunk_size) + half)
        if field(fields, 12, bytes, name, length=32) != content:
            raise Damaged(name, "wrong content hash")
        for session_key in field(fields, 21, list, name, optional=True) or []:
            check_session_key(session_key, name)
        if 3 in fields:
            check_session_key(fields[3], name)

    def _read_liveness(self):
        """Live and shared ordinals of every segment: {(kind, session, number): (live, shared)}."""
        name = f"live/{self.point.tail}"
        path = self.repo.root / name
        with c.open_object(path, name) as file:
            stored = blake3()
            stored.update(file.read())
            if (file.tell(), stored.digest()) != (self.live_len, self.live_hash):
                raise Damaged(name, "it is not the object that the manifest names")
        value = parse_cbor(self.repo.sealed(name, c.LIVENESS).record(), name)
        if type(value) is not list or len(value) != 2:
            raise Damaged(name, "not an array of data and map")
        live = {}
        for kind, sessions, width in ((c.DATA, value[0], 3), (c.MAP, value[1], 2)):
            last_session = b""
            if type(sessions) is not list:
                raise Damaged(name, "sessions are not an array")
            for entry in sessions:
                match entry:
                    case [bytes(session), list(items)] if (
                        len(session) == 16 and session > last_session and items and len(items) % width == 0
                    ):
                        last_session = session
                    case _:
                        raise Damaged(name, "wrong or unordered session")
                number = -1
                for i in range(0, len(items), width):
                    if type(items[i]) is not int or items[i] < 0:
                        raise Damaged(name, "wrong gap")
                    number += 1 + items[i]
                    sets = [ordinal_set(s, name) for s in items[i + 1 : i + width]]
                    if not sets[0] or number >= 2**32 or (width == 3 and not sets[1] <= sets[0]):
                        raise Damaged(name, f"wrong sets of segment {number}")
                    live[kind, session, number] = (sets[0], sets[1] if width == 3 else set())
        return live

    def _open_segment(self, kind, session, number):
        if kind == c.MAP:
            return self.repo.sealed(f"map/{session.hex()}/{number:08}", kind)
        base = f"seg/{session.hex()}/{number:08}"
        generations = sorted(self.repo.root.glob(base + ".g[0-9][0-9]"), reverse=True)
        problem = Damaged(base, "missing")
        for path in generations:
            try:
                return self.repo.sealed(f"seg/{session.hex()}/{path.name}", kind)
            except Damaged as error:
                problem = error
        raise problem

    def _locate(self, kind, location, ordinal):
        """The segment of a body and its row there; the liveness must cover it."""
        session, number = location
        segment = self.segment(kind, session, number)
        row = segment.bodies.get(ordinal)
        if row is None:
            raise Damaged(segment.name, f"body {ordinal} is missing")
        live, shared = self.live.get((kind, session, number), (set(), set()))
        if ordinal not in live:
            raise Damaged(f"live/{self.point.tail}", f"body {ordinal} of {segment.name} is in use and not live")
        if kind == c.DATA:
            self.used[session, number, ordinal] += 1
            if self.used[session, number, ordinal] > 1 and ordinal not in shared:
                raise Damaged(f"live/{self.point.tail}", f"body {ordinal} of {segment.name} is used twice and not shared")
        return segment, row

    def _chunks(self, level, index, page_hash, location, ordinal):
        """Walks a page and yields (chunk number, location, ordinal, digest) of every chunk that holds data."""
        segment, row = self._locate(c.MAP, location, ordinal)
        covered = PLACES**level
        if row.codec > 1 or row.raw_len > MAX_PAGE or row.key != index * covered * PLACES:
            raise Damaged(segment.name, f"body {ordinal} is not the page that its pointer means")
        raw = segment.body(ordinal)
        what = f"{segment.name}, page {ordinal}"
        runs, cells = parse_page(raw, level, what)
        form = bytes([level]) + runs + b"".join(cell[1][:16] for cell in cells)
        found = c.keyed(self.keys.content, form)[:16] + c.keyed(self.keys.page, raw)[:16]
        if found != page_hash:
            raise Damaged(what, "wrong page hash")
        for place, value, where, body in cells:
            number = index * PLACES + place
            if number * covered >= self.chunks:
                raise Damaged(what, f"place {place} is beyond the end of the volume")
            if level:
                yield from self._chunks(level - 1, number, value, where, body)
            else:
                yield number, where, body, value

    def write(self, file):
        """Writes the volume into an empty file, sparse. Returns the number of bytes that are not holes."""
        file.truncate(self.size)
        written = 0
        if self.root is None:
            return written
        chunk_size = self.repo.chunk_size
        for number, where, ordinal, digest in self._chunks(self.depth - 1, 0, *self.root):
            segment, row = self._locate(c.DATA, where, ordinal)
            if row.digest != digest:
                raise Damaged(segment.name, f"body {ordinal} is not the one that the map means")
            if row.raw_len != min(chunk_size, self.size - number * chunk_size):
                raise Damaged(segment.name, f"body {ordinal} has not the length of chunk {number}")
            file.seek(number * chunk_size)
            file.write(segment.body(ordinal))
            written += row.raw_len
        return written


def check_session_key(value, name):
    match value:
        case [bytes(volume), int(seq), bytes(session)] if len(volume) == 16 and len(session) == 16 and seq >= 0:
            return
    raise Damaged(name, "wrong session key")


def ordinal_set(value, name):
    """The ordinals of a set of the liveness, which must have the type that the specification says for it."""
    if type(value) is int and 0 <= value <= c.MAX_BODIES:
        return set(range(value))
    ordinals = []
    if type(value) is bytes and value and value[-1] and len(value) <= c.MAX_BODIES // 8:
        ordinals = [i for i in range(len(value) * 8) if value[i // 8] >> (i % 8) & 1]
    elif type(value) is list and len(value) <= c.MAX_BODIES and all(type(g) is int and g >= 0 for g in value):
        last = -1
        for gap in value:
            last += 1 + gap
            ordinals.append(last)
    if not ordinals or ordinals[-1] >= c.MAX_BODIES or ordinals[-1] == len(ordinals) - 1:
        raise Damaged(name, "a set of ordinals is wrong or written in a wrong way")
    gaps = [b - a - 1 for a, b in zip([-1] + ordinals, ordinals)]
    bitmap = bytearray(ordinals[-1] // 8 + 1)
    for o in ordinals:
        bitmap[o // 8] |= 1 << o % 8
    shorter = len(cbor2.dumps(gaps)) < len(cbor2.dumps(bytes(bitmap)))
    if value != (gaps if shorter else bytes(bitmap)):
        raise Damaged(name, "a set of ordinals is written in a wrong way")
    return set(ordinals)


def parse_page(raw, level, what):
    """Runs column and cells (place, hash, location, ordinal) of a page."""
    match parse_cbor(raw, what):
        case [int(found), bytes(runs), bytes(rows), bytes(hashes), bytes(row_of), bytes(ordinals)]:
            pass
        case _:
            raise Damaged(what, "not a map page")
    if found != level:
        raise Damaged(what, f"level {found} instead of {level}")
    if len(runs) < 2 or runs[0] > 1 or sum(n + 1 for n in runs[1:]) != PLACES:
        raise Damaged(what, "wrong runs")
    places, at, taken = [], 0, runs[0] == 1
    for n in runs[1:]:
        if taken:
            places.extend(range(at, at + n + 1))
        at, taken = at + n + 1, not taken
    count, width = len(places), 32 if level else 16
    if not count or (len(hashes), len(row_of), len(ordinals)) != (width * count, count, 2 * count):
        raise Damaged(what, "columns do not have a cell for each place")
    table = [rows[i : i + 20] for i in range(0, len(rows), 20)]
    in_order = list(dict.fromkeys(row_of)) == list(range(len(table)))
    if len(rows) % 20 or len(set(table)) != len(table) or not in_order:
        raise Damaged(what, "rows are not in the order of their first use")
    segments = [(r[:16], int.from_bytes(r[16:], "little")) for r in table]
    cells = [
        (place, hashes[i * width : (i + 1) * width], segments[row_of[i]], struct.unpack_from("<H", ordinals, 2 * i)[0])
        for i, place in enumerate(places)
    ]
    return runs, cells
