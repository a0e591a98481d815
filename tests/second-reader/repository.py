"""Owns the repository as a whole: config, key slots, which points exist, and which one a person means."""

import re
from dataclasses import dataclass
from pathlib import Path

import argon2.low_level
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import container as c
from container import Damaged, ReaderError, field, parse_cbor

SLOT_NAME = re.compile(r"(\d{10})-([0-9a-f]{32})")


@dataclass(frozen=True)
class Secret:
    """What the user opens the repository with: kind 0 a passphrase, kind 1 the bytes of a key file."""

    kind: int
    value: bytes


@dataclass(frozen=True, order=True)
class PointName:
    """The name of a point; sorts as `latest` does."""

    seq: int
    session: str
    volume: str

    @property
    def tail(self):
        return f"{self.volume}/{self.seq:010}-{self.session}"

    @property
    def id(self):
        return f"{self.session[:16]}-{self.volume[:8]}"


class Repository:
    """An opened repository. `say` gets what a person should know although it is no error."""

    def __init__(self, root, secret, say):
        self.root, self.say = Path(root), say
        self._first_good(("config", "config.b"), lambda file, name: self._open_config(file, name, secret))

    def _open_config(self, file, name, secret):
        header, payload, proof = c.clear_record(file, name, c.CONFIG)
        fields = parse_cbor(payload, name)
        if type(fields) is not dict:
            raise Damaged(name, "payload is not a map")
        if field(fields, 4, int, name):
            raise c.Newer(name, f"feature set {fields[4]:#x}")
        repo = field(fields, 0, bytes, name, length=16)
        self.cipher = field(fields, 1, int, name)
        if self.cipher > 1:
            raise c.Newer(name, f"cipher {self.cipher}")
        self.chunk_size = field(fields, 2, int, name, low=65_536, high=c.MIB)
        if self.chunk_size & (self.chunk_size - 1):
            raise Damaged(name, "chunk size is not a power of two")
        field(fields, 3, int, name, low=c.MIB, high=64 * c.MIB)
        field(fields, 5, int, name)
        field(fields, 6, int, name)
        field(fields, 7, dict, name)
        field(fields, 8, int, name, low=-(2**63))
        salt = field(fields, 9, bytes, name, length=32, optional=True)
        if (salt is not None) != (self.cipher == 0):
            raise Damaged(name, "public salt and cipher do not fit")
        if self.cipher == 0 and secret:
            raise ReaderError("the repository is not encrypted, but a passphrase or key file was given")
        if self.cipher == 1 and not secret:
            raise ReaderError("the repository is encrypted: give a passphrase file or key file")
        self.keys = c.Keys.of(self._master_key(repo, secret) if secret else salt, repo)
        if c.keyed(self.keys.config, header.raw + payload) != proof:
            raise Damaged(name, "its proof is wrong")

    def _first_good(self, names, read):
        """Reads the first of an object and its copy that is not damaged, and says so if it is the copy."""
        errors = []
        for name in names:
            try:
                with c.open_object(self.root / name, name) as file:
                    result = read(file, name)
            except Damaged as error:
                errors.append(str(error))
                continue
            for error in errors:
                self.say(f"{error}; its copy {name} was taken")
            return name, result
        raise ReaderError("; ".join(errors))

    def _master_key(self, repo, secret):
        slots = sorted({p.name.removesuffix(".b") for p in self.root.glob("keys/*")})
        problems = []
        for slot in slots:
            if not re.fullmatch("[0-9a-f]{32}", slot):
                continue
            try:
                name, record = self._first_good(
                    (f"keys/{slot}", f"keys/{slot}.b"), lambda file, name: c.clear_record(file, name, c.KEY_SLOT)
                )
                master = unwrap(name, *record, slot, repo, secret)
            except ReaderError as error:
                problems.append(str(error))
                continue
            if master:
                return master
        what = "key file" if secret.kind else "passphrase"
        raise ReaderError("; ".join([f"no key slot opens with this {what}"] + problems))

    def sealed(self, name, *kinds):
        """An object whose seal, tag and directory are right."""
        return c.Sealed(self.root / name, name, kinds, self.keys, self.cipher, self.chunk_size)

    def _slots(self, directory):
        found = set()
        for path in self.root.glob(f"{directory}/*/*"):
            match = SLOT_NAME.fullmatch(path.name)
            if match and re.fullmatch("[0-9a-f]{32}", path.parent.name):
                found.add(PointName(int(match[1]), match[2], path.parent.name))
        return found

    def points(self):
        """The points that are not forgotten, with those that can only be read through their copy."""
        opened, forgotten = self._slots("open"), self._slots("tomb")
        committed = {p for p in self._slots("snap") if (self.root / "snap" / p.tail).stat().st_size > 256}
        return ((opened & committed) | self._slots("copy")) - forgotten

    def resolve(self, wanted):
        """The point that an id, a unique prefix of one or NAME@latest means."""
        points = self.points()
        if wanted.endswith("@latest"):
            name = wanted.removesuffix("@latest")
            volume = self.keys.digest(name.encode()).hex()
            points = [p for p in points if p.volume == volume]
            if not points:
                raise ReaderError(f"there is no point of volume {name!r}")
            return max(points)
        if len(wanted) < 4:
            raise ReaderError(f"{wanted!r} is too short: give at least 4 characters of an id")
        matches = [p for p in points if p.id.startswith(wanted)]
        if len(matches) != 1:
            raise ReaderError(f"{len(matches)} points have an id that begins with {wanted!r}")
        return matches[0]

    def manifest(self, point):
        """Name and record of the manifest: from the slot if it is good and `open` is there, else from the copy."""
        try:
            if not (self.root / "open" / point.tail).exists():
                raise Damaged(f"open/{point.tail}", "missing")
            name = f"snap/{point.tail}"
            return name, self._manifest_record(name)
        except Damaged as error:
            name = f"copy/{point.tail}"
            if not (self.root / name).exists():
                raise
            record = self._manifest_record(name)
            self.say(f"{error}; the point is damaged and is read through {name}")
            return name, record

    def _manifest_record(self, name):
        manifest = self.sealed(name, c.MANIFEST, c.ABORT)
        if manifest.kind == c.ABORT:
            raise ReaderError(f"{name}: the session was aborted: there is no point")
        if manifest.header.total <= 512:
            raise Damaged(name, "too short for a manifest")
        return manifest.record()


def unwrap(name, header, payload, proof, slot, repo, secret):
    """The master key in a key slot, or None if the slot is another repository's, of another kind or for another secret."""
    fields = parse_cbor(payload, name)
    if type(fields) is not dict or field(fields, 0, bytes, name, length=16).hex() != slot:
        raise Damaged(name, "its id is not that of its name")
    if field(fields, 1, bytes, name, length=16) != repo or field(fields, 2, int, name) != secret.kind:
        return None
    if len(proof) != 48:
        raise Damaged(name, "wrapped key has a wrong length")
    if secret.kind == 0:
        memory = field(fields, 4, int, name, low=8, high=1_048_576)
        passes = field(fields, 5, int, name, low=1, high=64)
        lanes = field(fields, 6, int, name, low=1, high=16)
        salt = field(fields, 7, bytes, name, length=32)
        if memory < 8 * lanes:
            raise Damaged(name, "too little memory for its lanes")
        stretched = argon2.low_level.hash_secret_raw(
            secret.value, salt, passes, memory, lanes, 32, argon2.low_level.Type.ID, version=0x13
        )
    else:
        if len(secret.value) < 32:
            raise ReaderError("the key file is shorter than 32 bytes")
        stretched = c.derive("key file", secret.value)
    wrapping = c.keyed(stretched, b"\x02\x01" + header.salt)
    try:
        return AESGCM(wrapping).decrypt(bytes(12), proof, header.raw + payload)
    except InvalidTag:
        return None
