//! Uploads: a few PutObjects in flight, each paid for by a claim on the sealed-segment budget.
//!
//! Owns: the upload threads. Must not: know what an object holds.

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::budget::{Claim, Failure};
use crate::pipeline::progress::{Progress, Stage};
use crate::repository::store::Store;

/// An object on its way.
#[derive(Debug)]
pub struct Upload {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub body: Bytes,
    /// The memory it occupies, given back once it is stored.
    pub claim: Claim,
}

/// Hands objects to the upload threads.
#[derive(Clone, Debug)]
pub struct Uploader(Sender<Upload>);

impl Uploader {
    /// An uploader and what its threads receive. The queue is never longer than the claims that pay for it.
    #[must_use]
    pub fn new(queue: usize) -> (Self, Receiver<Upload>) {
        let (sender, receiver) = crossbeam_channel::bounded(queue);
        (Self(sender), receiver)
    }

    /// Queues an object. Success does not mean that it is stored: the end of all upload threads without a failure does.
    ///
    /// # Errors
    /// `Internal` where the threads have ended: somebody else failed and says why.
    pub fn send(&self, upload: Upload) -> Result<()> {
        self.0.send(upload).map_err(|refused| {
            Error::new(ErrorKind::Internal, "queue an upload after the end")
                .object(refused.into_inner().name)
        })
    }
}

/// One upload thread; goes on taking uploads after a failure, so that nobody waits for their claims.
pub fn run(store: &dyn Store, uploads: &Receiver<Upload>, failure: &Failure, progress: &Progress) {
    let mut clock = progress.stages.clock(Stage::Upload);
    while let Ok(Upload { name, body, claim }) = clock.waits(|| uploads.recv()) {
        if failure.is_failed() {
            continue;
        }
        let len = body.len() as u64;
        match store.put(&name, body) {
            Ok(()) => Progress::add(&progress.stored, len),
            Err(error) => failure.record(error),
        }
        drop(claim);
    }
}
