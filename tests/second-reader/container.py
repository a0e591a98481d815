"""Owns single objects: CBOR, key derivation, the container with its seal, tags and directory, and the bodies in it."""

import io
import struct
from dataclasses import dataclass

import cbor2
import lz4.block
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CONFIG, KEY_SLOT, START, MANIFEST, ABORT, FORGET, LIVENESS, DATA, MAP, BEAT = range(1, 11)
MIB = 1 << 20
MAX_REGION = 262_144
MAX_BODIES = 4_096
MAX_RECORD = 64 * MIB
FIRST_READ = 32_768


class ReaderError(Exception):
    """Why the point cannot be read."""


class Damaged(ReaderError):
    """An object is missing or not what the specification says."""

    def __init__(self, name, why):
        super().__init__(f"{name}: damaged: {why}")


class Newer(ReaderError):
    """An object has a right seal, but was written by a later version."""

    def __init__(self, name, what):
        super().__init__(f"{name}: {what} is not known to this reader; a newer version wrote it")


def keyed(key, data):
    return blake3(data, key=key).digest()


def derive(purpose, material):
    return blake3(material, derive_key_context="snaphaul.dev repository v1: " + purpose).digest()


def parse_cbor(data, name):
    """The value of one item of core deterministic CBOR."""
    try:
        value = cbor2.loads(data)
        deterministic = cbor2.dumps(value, canonical=True) == data
    except Exception as error:  # the decoder raises whatever a decoded value makes it raise
        raise Damaged(name, f"not CBOR ({error})") from None
    if not deterministic:
        raise Damaged(name, "CBOR is not deterministic")
    return value


def field(fields, key, kind, name, *, length=None, low=0, high=2**64 - 1, optional=False):
    """Field `key` of a map, checked for its type and its limits. `length` is exact for bytes, the limit for text."""
    if key not in fields:
        if optional:
            return None
        raise Damaged(name, f"field {key} is missing")
    value = fields[key]
    good = type(value) is kind
    if good and kind is int:
        good = low <= value <= high
    elif good and kind is bytes:
        good = length is None or len(value) == length
    elif good and kind is str:
        good = length is None or len(value.encode()) <= length
    if not good:
        raise Damaged(name, f"field {key} has a wrong type, length or value")
    return value


@dataclass(frozen=True)
class Keys:
    """The subkeys of a repository."""

    repo: bytes
    data: bytes
    meta: bytes
    id: bytes
    page: bytes
    config: bytes
    content: bytes

    @classmethod
    def of(cls, master, repo):
        data, meta, ident = (
            derive(p, master + repo) for p in ("bodies of data segments", "metadata", "digests")
        )
        return cls(
            repo, data, meta, ident,
            page=derive("map page hashes", meta),
            config=derive("config authentication", meta),
            content=derive("content hashes", ident),
        )

    def digest(self, raw):
        return keyed(self.id, raw)[:16]


@dataclass(frozen=True)
class Header:
    """The first 64 bytes, of an object whose seal is right."""

    raw: bytes
    version: int
    kind: int
    cipher: int
    region_len: int
    total: int
    bodies_at: int
    salt: bytes


def bound_name(name):
    if name.startswith("copy/"):
        return "snap/" + name[5:]
    if name.endswith(".b"):
        return name[:-2]
    if len(name) > 4 and name[-4:-2] == ".g" and name[-2:].isdecimal():
        return name[:-4]
    return name


def body_id(name, kind):
    """Session id and segment number that bodies of the object are bound to."""
    parts = name.split("/")
    if kind in (DATA, MAP):
        return bytes.fromhex(parts[1]), int(parts[2][:8])
    return bytes.fromhex(parts[-1][-32:]), 0


def read_head(file, name, kinds):
    """Header and region of the object, checked in the order of the specification up to the padding."""
    first = file.read(FIRST_READ)
    if len(first) < 64:
        raise Damaged(name, "shorter than a header")
    magic, version, kind, cipher, region_len, total, bodies_at, zero = struct.unpack_from("<8sHBBIQII", first)
    if magic != b"SNAPHAUL":
        raise Damaged(name, "no magic")
    if region_len > MAX_REGION:
        raise Damaged(name, "region too long")
    end = 96 + region_len
    if len(first) < end:
        first += file.read(end - len(first))
    if len(first) < end:
        raise Damaged(name, "ends inside its region")
    if blake3(first[: 64 + region_len]).digest() != first[64 + region_len : end]:
        raise Damaged(name, "wrong seal")
    if version != 1:
        raise Newer(name, f"layout version {version}")
    if not 1 <= kind <= 10:
        raise Newer(name, f"class {kind}")
    if cipher not in (0, 1):
        raise Newer(name, f"cipher {cipher}")
    if kind not in kinds:
        raise Damaged(name, f"class {kind} under this name")
    expected_at = end + (-end % 4096 if kind in (DATA, MAP) else 0)
    if zero or bodies_at != expected_at or total < bodies_at:
        raise Damaged(name, "wrong header")
    if kind in (CONFIG, KEY_SLOT) and (cipher or total != end):
        raise Damaged(name, "wrong header of a clear record")
    if file.seek(0, io.SEEK_END) != total:
        raise Damaged(name, "its length is not that of its header")
    if len(first) < bodies_at:
        file.seek(len(first))
        first += file.read(bodies_at - len(first))
    if any(first[end:bodies_at]) or len(first) < bodies_at:
        raise Damaged(name, "padding is not zero")
    header = Header(first[:64], version, kind, cipher, region_len, total, bodies_at, first[32:64])
    return header, first[64 : 64 + region_len]


def clear_record(file, name, kind):
    """Header, payload bytes and proof of a clear record."""
    header, region = read_head(file, name, (kind,))
    pair = parse_cbor(region, name)
    if not (type(pair) is list and len(pair) == 2 and all(type(p) is bytes for p in pair)):
        raise Damaged(name, "not a payload and a proof")
    return header, pair[0], pair[1]


@dataclass(frozen=True)
class Body:
    """One row of a directory."""

    key: int
    ordinal: int
    codec: int
    raw_len: int
    stored_len: int
    offset: int
    digest: bytes
    tag: bytes


class Sealed:
    """A sealed object whose directory was checked. Bodies are read from the file one at a time."""

    def __init__(self, path, name, kinds, keys, cipher, chunk_size):
        self.path, self.name, self.keys, self.cipher = path, name, keys, cipher
        with open_object(path, name) as file:
            self.header, region = read_head(file, name, kinds)
        self.kind = self.header.kind
        if self.header.cipher != cipher:
            raise Damaged(name, "its cipher is not that of the repository")
        if len(region) < 16:
            raise Damaged(name, "region shorter than a tag")
        plain = self._open(
            self._object_key(keys.meta, self.header.salt), b"\xff" * 12,
            keys.repo + bound_name(name).encode() + self.header.raw, region[:-16], region[-16:], "directory",
        )
        self._read_directory(parse_cbor(plain, name), chunk_size)

    def _object_key(self, subkey, salt):
        return keyed(subkey, bytes([self.kind, self.cipher]) + salt)

    def _open(self, key, nonce, bound, stored, tag, what):
        if self.cipher == 1:
            try:
                return AESGCM(key).decrypt(nonce, stored + tag, bound)
            except InvalidTag:
                pass
        elif keyed(key, bound + stored)[:16] == tag:
            return stored
        raise Damaged(self.name, f"wrong tag of {what}")

    def _read_directory(self, fields, chunk_size):
        name = self.name
        if type(fields) is not dict:
            raise Damaged(name, "directory is not a map")
        count = field(fields, 0, int, name, high=MAX_BODIES)

        def column(key, width, optional=False):
            data = field(fields, key, bytes, name, length=width * count, optional=optional)
            if data is None:
                return None
            return [data[i : i + width] for i in range(0, len(data), width)]

        def numbers(key, width, optional=False):
            cells = column(key, width, optional)
            return cells and [int.from_bytes(c, "little") for c in cells]

        if (6 in fields) == (7 in fields):
            raise Damaged(name, "raw lengths must be there in exactly one of two forms")
        raw_lens = numbers(7, 3) if 7 in fields else [field(fields, 6, int, name)] * count
        if 6 in fields and not count and fields[6]:
            raise Damaged(name, "a raw length without bodies")
        if 7 in fields and len(set(raw_lens or [0])) == 1:
            raise Damaged(name, "equal raw lengths in a column")
        ordinals = numbers(8, 2, optional=True)
        if ordinals is None:
            ordinals = list(range(count))
        elif ordinals == list(range(count)) or any(a >= b for a, b in zip(ordinals, ordinals[1:])):
            raise Damaged(name, "ordinals are not ascending, or need not be there")
        salt = field(fields, 9, bytes, name, length=32, optional=True)
        if any(field(fields, 10, bytes, name, optional=True) or b""):
            raise Damaged(name, "padding of the directory is not zero")

        limit = chunk_size if self.kind == DATA else MIB
        offset = self.header.bodies_at
        self.bodies = {}
        rows = zip(
            numbers(1, 5), ordinals, numbers(3, 1), raw_lens, numbers(2, 3), column(4, 16), column(5, 16), strict=True
        )
        for key, ordinal, codec, raw_len, stored_len, digest, tag in rows:
            if codec > 2 or not 1 <= raw_len <= limit:
                raise Damaged(name, f"codec or raw length of body {ordinal}")
            if stored_len != raw_len if codec == 0 else not 0 < stored_len < raw_len:
                raise Damaged(name, f"stored length of body {ordinal}")
            self.bodies[ordinal] = Body(key, ordinal, codec, raw_len, stored_len, offset, digest, tag)
            offset += stored_len
        if offset != self.header.total:
            raise Damaged(name, "its length is not the sum of its parts")
        subkey = self.keys.data if self.kind == DATA else self.keys.meta
        self._body_key = self._object_key(subkey, salt or self.header.salt)
        self._session, self._number = body_id(name, self.kind)

    def body(self, ordinal):
        """The raw bytes of a body: tag, codec, length and digest are checked."""
        row = self.bodies.get(ordinal)
        what = f"body {ordinal}"
        if row is None:
            raise Damaged(self.name, f"{what} is missing")
        with open_object(self.path, self.name) as file:
            file.seek(row.offset)
            stored = file.read(row.stored_len)
        bound = self.keys.repo + self._session + struct.pack("<IHBI", self._number, ordinal, row.codec, row.raw_len)
        nonce = struct.pack("<H10x", ordinal)
        raw = expand(row, self._open(self._body_key, nonce, bound, stored, row.tag, what))
        if raw is None or len(raw) != row.raw_len:
            raise Damaged(self.name, f"{what} does not expand to its length")
        if self.keys.digest(raw) != row.digest:
            raise Damaged(self.name, f"wrong digest of {what}")
        return raw

    def record(self):
        """The record that the bodies are the pieces of."""
        rows = list(self.bodies.values())
        if sum(r.raw_len for r in rows) > MAX_RECORD:
            raise Damaged(self.name, "record too long")
        for i, row in enumerate(rows):
            if (row.key, row.ordinal) != (i, i) or row.codec > 1 or (row.raw_len != MIB and i + 1 < len(rows)):
                raise Damaged(self.name, f"piece {i} of the record is out of order")
        return b"".join(self.body(i) for i in range(len(rows)))


def open_object(path, name):
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise Damaged(name, "missing") from None


def expand(row, stored):
    """Decompresses a body, or None if it cannot be."""
    try:
        if row.codec == 1:
            return lz4.block.decompress(stored, uncompressed_size=row.raw_len)
        if row.codec == 2:
            frame = zstandard.get_frame_parameters(stored)
            if frame.dict_id or frame.content_size not in (row.raw_len, zstandard.CONTENTSIZE_UNKNOWN):
                return None
            return zstandard.ZstdDecompressor().decompress(
                stored, max_output_size=row.raw_len, allow_extra_data=False
            )
    except (lz4.block.LZ4BlockError, zstandard.ZstdError):
        return None
    return stored
