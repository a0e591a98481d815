//! One state of the modelled world: the store, what happened so far, and where every process stands.
//!
//! Owns: compact values that hash fast. Must not: know the protocol.

/// Most sessions, readers among them.
pub(super) const SESSIONS: usize = 5;
/// Most collectors at work at once.
pub(super) const COLLECTORS: usize = 3;
/// Generations of a segment.
pub(super) const GENERATIONS: usize = 3;

/// A set of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Set(u8);

impl Set {
    pub(super) fn has(self, session: usize) -> bool {
        self.0 >> session & 1 == 1
    }

    pub(super) fn add(&mut self, session: usize) {
        self.0 |= 1 << session;
    }

    pub(super) fn with(mut self, session: usize) -> Self {
        self.add(session);
        self
    }

    pub(super) fn remove(&mut self, session: usize) {
        self.0 &= !(1 << session);
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn first(self) -> Option<usize> {
        self.iter().next()
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |session| self.has(*session))
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(sessions: I) -> Self {
        sessions.into_iter().fold(Self::default(), Self::with)
    }
}

/// Chunks: two ordinals of one segment per session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Chunks(u16);

impl Chunks {
    pub(super) fn of(session: usize, ordinals: Ordinals) -> Self {
        Self(u16::from(ordinals.0) << (2 * session))
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The ordinals of one session's segment.
    pub(super) fn ordinals(self, session: usize) -> Ordinals {
        let bits = self.0 >> (2 * session) & 3;
        Ordinals(u8::try_from(bits).expect("two bits"))
    }

    /// Only ordinal 0 of every segment: what a child keeps of its parent.
    pub(super) fn firsts(self) -> Self {
        Self(self.0 & 0x5555)
    }
}

/// Ordinals of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ordinals(pub(super) u8);

impl Ordinals {
    pub(super) const FIRST: Self = Self(1);
    pub(super) const BOTH: Self = Self(3);

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u16> {
        (0..2).filter(move |ordinal| self.0 >> ordinal & 1 == 1)
    }
}

/// The content of a slot, or of the register that decides in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Slot {
    #[default]
    Empty,
    /// A manifest; in a register: committed.
    Manifest,
    /// An abort marker, and whose.
    Abort(u8),
}

/// "By" of whoever fences without wanting anything.
pub(super) const FENCER: u8 = 7;

/// Generations of one segment: what each holds, if it is there.
pub(super) type Segment = [Option<Ordinals>; GENERATIONS];

/// Everything that tells one state from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) past: Past,
    pub(super) sessions: [Session; SESSIONS],
    pub(super) collectors: [Collector; COLLECTORS],
}

/// Which objects are there. Bodies that never change stand in [`Session`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) open: Set,
    pub(super) tomb: Set,
    pub(super) copy: Set,
    pub(super) live: Set,
    pub(super) slot: [Slot; SESSIONS],
    /// Only where a register decides.
    pub(super) register: [Slot; SESSIONS],
    pub(super) data: [Segment; SESSIONS],
}

impl Store {
    pub(super) fn has_manifest(&self, session: usize) -> bool {
        self.slot[session] == Slot::Manifest
    }

    pub(super) fn is_whole(&self, session: usize) -> bool {
        self.open.has(session) && self.has_manifest(session)
    }
}

/// What happened and does not show in the store any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Past {
    pub(super) acknowledged: Set,
    pub(super) forgotten: Set,
    /// Had a manifest at some time.
    pub(super) committed: Set,
    pub(super) fenced: Set,
    /// The store lost a control object of it.
    pub(super) lost: Set,
    /// A second PUT of its manifest is still on its way.
    pub(super) late_commit: Set,
    pub(super) forgets: u8,
    pub(super) fences: u8,
    pub(super) duplicates: u8,
    pub(super) losses: u8,
    pub(super) heartbeats: u8,
    pub(super) runs: u8,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Session {
    /// Position in its program; `None` before it starts.
    pub(super) at: Option<u8>,
    /// Request inside that part.
    pub(super) request: u8,
    /// It gave up, or is done.
    pub(super) ended: bool,
    /// What `open` says.
    pub(super) pins: Set,
    pub(super) adopts: Set,
    /// The child keeps what it can of its parent.
    pub(super) inherits: bool,
    /// It reads its point through the copy.
    pub(super) by_copy: bool,
    /// Dead sessions it means to take over, and which is next.
    pub(super) candidates: Set,
    pub(super) taking: Option<u8>,
    /// Inherited ones whose marker is still to be read, and those read with "by".
    pub(super) unread: Set,
    pub(super) waiting: [Option<u8>; SESSIONS],
    pub(super) owners: Set,
    /// Whose data it may reference.
    pub(super) owned: Set,
    /// What its manifest references.
    pub(super) references: Chunks,
}

/// Where a collector stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Collector {
    pub(super) phase: Phase,
    pub(super) view: Seen,
    pub(super) tasks: Tasks,
}

/// What a collector does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// Page of a listing.
    List { step: u8, page: u8 },
    /// GET of start records.
    Bodies,
    /// Second look at a suspect: which request.
    Suspects { request: u8 },
    /// GET of roots' liveness.
    Liveness,
    /// Deletions and compactions.
    Tasks,
}

/// What a collector has seen in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) copies: Set,
    pub(super) data: [Segment; SESSIONS],
    pub(super) live: Set,
    pub(super) tombs: Set,
    pub(super) opens_before: Set,
    pub(super) manifests: Set,
    pub(super) aborts: Set,
    pub(super) opens_after: Set,
    /// Still to be read in this phase.
    pub(super) todo: Set,
    pub(super) suspects: Set,
    /// Start records that were gone, liveness that was gone.
    pub(super) no_open: Set,
    pub(super) no_live: Set,
    /// Second looks: tomb, open, manifest, copy.
    pub(super) looked: [u8; SESSIONS],
}

/// What a collector has decided to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Tasks {
    /// Points whose second copy is missing, and the next request about each.
    pub(super) mends: [Option<Mend>; SESSIONS],
    /// Cause and next step of each session's chain.
    pub(super) chains: [Option<(Why, u8)>; SESSIONS],
    pub(super) live: Set,
    /// Generations to delete, one bit each.
    pub(super) segments: [u8; SESSIONS],
    /// Sessions whose segment stays, in a higher generation than those.
    pub(super) superseded: Set,
    pub(super) compact: [Option<Rewrite>; SESSIONS],
}

/// The next request about a second copy that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Mend {
    Look,
    Read,
    Confirm,
    Store,
    /// Whether the start record is still there, after the PUT.
    Again,
    /// Where it is gone: whether somebody purges it,
    Forgotten,
    /// or did.
    Purged,
    TakeBack,
}

/// Cause of a chain, as the planner names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Why {
    Aborted,
    Forgotten,
    Leftover,
    Ghost,
}

/// A compaction under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Rewrite {
    pub(super) generation: u8,
    pub(super) live: Ordinals,
    /// What was read of the old generation.
    pub(super) read: Option<Ordinals>,
    /// The old generation is deleted first, by a mutation.
    pub(super) deleted: bool,
}
