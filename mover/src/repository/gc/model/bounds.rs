//! How far a search goes, and which parts of the protocol take part in it.

use super::super::DecidedBy;

/// Limits of one search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) writers: usize,
    pub(super) readers: usize,
    /// At work at the same time.
    pub(super) collectors: usize,
    /// In all.
    pub(super) runs: u8,
    pub(super) forgets: u8,
    pub(super) fences: u8,
    /// Commit PUTs that arrive a second time, much later.
    pub(super) duplicates: u8,
    /// Control objects that the store loses.
    pub(super) losses: u8,
    pub(super) parents: Parents,
    pub(super) adoption: Adoption,
    /// Writers store a second copy of their manifest.
    pub(super) copies: bool,
    /// Collectors store those that are missing.
    pub(super) mends: bool,
    pub(super) compaction: bool,
    /// The first session has committed before the search begins.
    pub(super) founded: bool,
    /// A collector's deletions in any order the chains allow.
    pub(super) any_order: bool,
    /// Pages a LIST takes.
    pub(super) pages: u8,
    pub(super) decided_by: DecidedBy,
    /// The store has create-only PUT. Without it nobody is fenced or taken over, and nothing compacted.
    pub(super) create_only: bool,
}

/// On what a session may build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parents {
    None,
    /// Any session that ever had a manifest; the child keeps or drops what the parent references.
    Any,
    /// The session before it, whose data it keeps.
    Previous,
}

/// Whom a session may take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adoption {
    None,
    /// Any one other session.
    Any,
    /// The session before it, so that chains grow.
    Previous,
}

impl Bounds {
    /// `writers` sessions; `collectors` at work at once, `runs` in all; `forgets`; `fences`.
    pub(super) fn new(
        writers: usize,
        (collectors, runs): (usize, u8),
        forgets: u8,
        fences: u8,
    ) -> Self {
        Self {
            writers,
            readers: 0,
            collectors,
            runs,
            forgets,
            fences,
            duplicates: 0,
            losses: 0,
            parents: Parents::None,
            adoption: Adoption::None,
            copies: false,
            mends: false,
            compaction: false,
            founded: false,
            any_order: false,
            pages: 1,
            decided_by: DecidedBy::Slot,
            create_only: true,
        }
    }

    pub(super) fn readers(self, readers: usize) -> Self {
        Self { readers, ..self }
    }

    pub(super) fn parents(self, parents: Parents) -> Self {
        Self { parents, ..self }
    }

    pub(super) fn adoption(self, adoption: Adoption) -> Self {
        Self { adoption, ..self }
    }

    pub(super) fn copies(self) -> Self {
        Self {
            copies: true,
            ..self
        }
    }

    /// With [`copies`](Self::copies) only.
    pub(super) fn mends(self) -> Self {
        Self {
            mends: true,
            ..self
        }
    }

    pub(super) fn losses(self, losses: u8) -> Self {
        Self { losses, ..self }
    }

    pub(super) fn duplicates(self, duplicates: u8) -> Self {
        Self { duplicates, ..self }
    }

    pub(super) fn compaction(self) -> Self {
        Self {
            compaction: true,
            ..self
        }
    }

    pub(super) fn founded(self) -> Self {
        Self {
            founded: true,
            ..self
        }
    }

    pub(super) fn any_order(self) -> Self {
        Self {
            any_order: true,
            ..self
        }
    }

    pub(super) fn pages(self, pages: u8) -> Self {
        Self { pages, ..self }
    }

    /// A register beside the store decides instead of the slot.
    pub(super) fn register(self) -> Self {
        Self {
            decided_by: DecidedBy::Register,
            ..self
        }
    }

    /// For replays; the other bounds must be such that nothing needs a winner.
    pub(super) fn without_create_only(self) -> Self {
        Self {
            create_only: false,
            ..self
        }
    }

    pub(super) fn sessions(&self) -> usize {
        self.writers + self.readers
    }

    pub(super) fn is_reader(&self, session: usize) -> bool {
        session >= self.writers
    }

    pub(super) fn by_register(&self) -> bool {
        self.decided_by == DecidedBy::Register
    }
}
