//! Which request of the code is which step of the model.
//!
//! Owns: that table. A step of the model may be several requests that nobody comes between, and the code sends some that the model
//! does not know, because they decide nothing.

use crate::repository::gc::model::traces::Who;
use crate::repository::ids::name;
use crate::repository::store::faulty::Operation::{self, Create, Delete, Get, Head, List, Put};
use crate::repository::store::stepped::Waiting;

/// A kind of request.
type Kind = (Operation, &'static str);

/// What a step of the model is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The request, or one of them.
    pub(super) first: &'static [Kind],
    /// What directly follows on it belongs to it too.
    pub(super) rest: &'static [Kind],
}

impl Wanted {
    /// The requests of a step of a session or a collector.
    pub(super) fn of(who: Who, what: &'static str) -> Self {
        let session = matches!(who, Who::Session(_));
        let (first, rest): (&[Kind], &[Kind]) = match what {
            "PUT open" => (&[(Operation::PutOnce, name::OPEN)], &[]),
            "HEAD tomb of the pin" | "GET tomb of a suspect" | "HEAD tomb of what was copied" => {
                (&[(Head, name::TOMB)], &[])
            }
            "HEAD open of the pin"
            | "HEAD open of the dead session, again"
            | "HEAD open of what it had taken over"
            | "HEAD open of what lacks a copy"
            | "HEAD open of what was copied"
            | "GET open of a suspect"
            | "looks whether it committed" => (&[(Head, name::OPEN)], &[]),
            "HEAD slot of the pin" | "GET slot of a suspect" | "HEAD slot of what was copied" => {
                (&[(Head, name::SNAP)], &[])
            }
            "HEAD liveness of the pin" => (&[(Head, name::LIVE)], &[]),
            "GET copy of a suspect" | "HEAD copy that is missing" => (&[(Head, name::COPY)], &[]),
            "takes the slot of the dead session"
            | "PUT manifest"
            | "PUT manifest, twice"
            | "finds its slot taken" => (&[(Create, name::SNAP)], &[]),
            "GET marker of what it had taken over" => (&[(Get, name::SNAP)], &[]),
            "LIST adopted data" => (&[(List, name::SEG)], &[(List, name::SEG), (Get, name::SEG)]),
            "PUT data and liveness" => (
                &[(Put, name::SEG)],
                &[(Put, name::SEG), (Put, name::MAP), (Put, name::LIVE)],
            ),
            "PUT copy" => (&[(Put, name::COPY)], &[]),
            "fences itself" => (&[(Create, name::SNAP), (Delete, name::OPEN)], &[]),
            "DELETE open" => (&[(Delete, name::OPEN)], &[]),
            "LIST copy" => (&[(List, name::COPY)], &[(List, name::COPY)]),
            "LIST data" => (
                &[(List, name::SEG)],
                &[(List, name::SEG), (List, name::MAP), (List, name::LIVE)],
            ),
            "LIST tomb" => (&[(List, name::TOMB)], &[(List, name::TOMB)]),
            "LIST open" | "LIST open, again" => (&[(List, name::OPEN)], &[(List, name::OPEN)]),
            "LIST snap" => (&[(List, name::SNAP)], &[(List, name::SNAP)]),
            "GET open in flight" => (&[(Get, name::OPEN)], &[]),
            "GET liveness of a root" => (&[(Get, name::LIVE)], &[]),
            "GET manifest to copy" => (&[(Get, name::SNAP)], &[]),
            "PUT missing copy" => (&[(Put, name::COPY)], &[]),
            "DELETE copy" | "DELETE copy that came late" => (&[(Delete, name::COPY)], &[]),
            "DELETE slot" => (&[(Delete, name::SNAP)], &[]),
            "DELETE liveness" => (&[(Delete, name::LIVE)], &[]),
            "DELETE tomb" => (&[(Delete, name::TOMB)], &[]),
            "DELETE data" | "DELETE compacted data" => (&[(Delete, name::SEG)], &[]),
            "GET data to compact" => (&[(Get, name::SEG)], &[(Get, name::SEG)]),
            "PUT next generation" => (&[(Create, name::SEG)], &[]),
            other => panic!("the model's step `{other}` of session: {session} is no request"),
        };
        Self { first, rest }
    }

    /// Whether a request that follows on `last` belongs to the same step: more of the same listing, or of another whole kind.
    pub(super) fn goes_on(&self, last: &Waiting, next: &Waiting) -> bool {
        let other_folder = next.operation == List
            && next.name != last.name
            && !self.rest.iter().any(|(_, prefix)| is_whole(prefix, next));
        Self::is(self.rest, next) && !other_folder
    }

    /// The prefixes that a listing covers.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &'static str> {
        self.rest
            .iter()
            .filter(|(operation, _)| *operation == List)
            .map(|(_, prefix)| *prefix)
    }

    pub(super) fn is(kinds: &[Kind], next: &Waiting) -> bool {
        kinds.iter().any(|(operation, prefix)| {
            next.operation == *operation && next.name.starts_with(prefix)
        })
    }
}

/// A listing of a whole prefix, or of one of the sixteen parts that a collector takes after a first page that was not all.
fn is_whole(prefix: &str, next: &Waiting) -> bool {
    next.name.len() <= prefix.len() + 1 && next.name.starts_with(prefix)
}

/// A request that the model leaves out, since nothing of the protocol hangs on it.
pub(super) fn is_extra(who: Who, next: &Waiting, copies: bool) -> bool {
    const ANY: &[Kind] = &[
        (Head, name::CONFIG),
        (Put, name::BEAT),
        (Head, name::BEAT),
        (Delete, name::BEAT),
    ];
    // What a reader reads; its record keeps that in place.
    const SESSION: &[Kind] = &[(Get, name::LIVE), (Get, name::SEG), (List, name::SEG)];
    // Signs of life, sizes of what is read next, maps, which live as long as data does, and second copies that are missing.
    const COLLECTOR: &[Kind] = &[
        (List, name::BEAT),
        (List, name::QUARANTINE),
        (Head, name::OPEN),
        (Head, name::LIVE),
        (Head, name::COPY),
        (Get, name::SNAP),
        (Put, name::COPY),
        (Delete, name::MAP),
    ];
    const COPIES: &[Kind] = &[(List, name::COPY), (Delete, name::COPY)];
    let collector = matches!(who, Who::Collector(_));
    is_about_silence(who, next)
        || Wanted::is(ANY, next)
        || Wanted::is(if collector { COLLECTOR } else { SESSION }, next)
        || (collector && !copies && Wanted::is(COPIES, next))
}

/// A collector looks for the signs of life of one session, which is no listing of all data.
pub(super) fn is_about_silence(who: Who, next: &Waiting) -> bool {
    let of_one = |kind: &&str| next.name.starts_with(*kind) && !is_whole(kind, next);
    matches!(who, Who::Collector(_))
        && next.operation == List
        && [name::SEG, name::MAP].iter().any(of_one)
}
