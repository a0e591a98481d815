//! Repairs one point: finds out what it lost, and commits it again or says why not.
//!
//! Owns: that decision. Must not: write other than the second copy of a manifest (`recommit` writes points).

use crate::error::{Error, Result};
use crate::pipeline::report::{Repaired, VerifyFinding};
use crate::pipeline::verify::maps::LiveCheck;
use crate::repository::format::Manifest;
use crate::repository::ids::name;
use crate::repository::map::{DamagedPage, Liveness, MapCursor, damaged_page};
use crate::repository::session::points::{Point, PointStatus};
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::{self, Kind};
use crate::repository::store::replace;

use super::Repair;
use super::rebuild::{Leaves, Rebuilder};
use super::recommit::recommit;
use crate::pipeline::restore::losses::Losses;

/// What a point lost.
#[derive(Debug, Default)]
struct Loss {
    /// Objects that only a new commit mends, each with what is wrong.
    objects: Vec<(String, String)>,
    /// Parts of the map.
    pages: Vec<DamagedPage>,
    /// The second copy of the manifest.
    copy: Option<String>,
    liveness: Option<Liveness>,
}

impl Repair<'_> {
    /// Mends a point, or reports what it lost for good.
    ///
    /// # Errors
    /// `NotFound` where it was forgotten meanwhile, and what the store answers.
    pub(super) fn point(&mut self, point: &Point) -> Result<()> {
        let repository = &self.context.repository;
        let lease = ReaderLease::take(repository, Kind::Verify, &[point])?;
        let mut loss = self.examine(point)?;
        let (rebuilt, lost) = self.rebuild(point, &loss)?;
        if !lost.is_empty() {
            self.give_up(point, &loss, &lost);
            return Ok(());
        }
        for page in &loss.pages {
            let object = page.page.split('#').next().unwrap_or(&page.page).to_owned();
            loss.objects.push((object, page.to_string()));
        }
        if !loss.objects.is_empty() {
            self.commit_again(point, &loss, &rebuilt)?;
        } else if let Some(why) = &loss.copy {
            self.copy(point, why)?;
        }
        drop(lease);
        Ok(())
    }

    fn examine(&self, point: &Point) -> Result<Loss> {
        let (repository, key) = (&self.context.repository, &point.key);
        let mut loss = Loss::default();
        match records::get_open(repository, key) {
            Ok(Some(_)) => {}
            Ok(None) => loss.object(&name::open(key), "its start record is gone"),
            Err(error) => loss.object(&name::open(key), &lost_or(error)?),
        }
        if let PointStatus::Damaged(why) = &point.status
            && loss.objects.is_empty()
        {
            loss.object(&name::slot(key), why);
        }
        let copy = name::copy(key);
        let copied = repository
            .store
            .get(&copy)
            .and_then(|object| Manifest::open(&repository.keys, key, &copy, &object));
        match copied {
            Ok(manifest) if manifest == point.manifest => {}
            Ok(_) => loss.copy = Some("it differs from the manifest".to_owned()),
            Err(error) => loss.copy = Some(lost_or(error)?),
        }
        let live = name::live(key);
        let liveness = repository.store.get(&live).and_then(|object| {
            Liveness::open(&repository.keys, key, &point.manifest.liveness, &object)
        });
        match liveness {
            Ok(liveness) => loss.liveness = Some(liveness),
            Err(error) => loss.object(&live, &lost_or(error)?),
        }
        self.walk(point, &mut loss)?;
        Ok(loss)
    }

    /// Every leaf, to see which pages are lost and whether the liveness says enough.
    fn walk(&self, point: &Point, loss: &mut Loss) -> Result<()> {
        let mut cursor = MapCursor::with_segments(&self.reader, &point.manifest.root);
        let mut check = LiveCheck::new(loss.liveness.as_ref());
        let mut from = 0;
        loop {
            self.context.stop.check()?;
            match cursor.next(from) {
                Ok(Some((index, leaf))) => {
                    check.leaf(&leaf);
                    from = index + 1;
                }
                Ok(None) => break,
                Err(error) => match damaged_page(&error) {
                    Some(page) if Losses::is_loss(&error) => {
                        from = page.next_leaf();
                        loss.pages.push(page.clone());
                    }
                    _ => return Err(error),
                },
            }
        }
        if !check.is_complete {
            let why = "it does not list everything that the point needs";
            loss.object(&name::live(&point.key), why);
        }
        Ok(())
    }

    /// Leaves for the lost pages, and the pages that stay lost.
    fn rebuild(&self, point: &Point, loss: &Loss) -> Result<(Leaves, Vec<DamagedPage>)> {
        let (mut rebuilt, mut lost) = (Leaves::new(), Vec::new());
        for page in &loss.pages {
            let found = match &loss.liveness {
                Some(liveness) => Rebuilder {
                    context: self.context,
                    reader: &self.reader,
                    point,
                    liveness,
                }
                .page(page)?,
                None => None,
            };
            match found {
                Some(leaves) => rebuilt.extend(leaves),
                None => lost.push(page.clone()),
            }
        }
        let manifest = &point.manifest;
        let keys = &self.context.repository.keys;
        let root = manifest.root;
        if root.content_hash(keys, manifest.size, manifest.chunk_size) != manifest.content_hash {
            return Err(Error::new(
                crate::ErrorKind::Corrupt,
                "match the map with the content hash of its manifest: they differ",
            )
            .object(name::slot(&point.key))
            .hint("forget the point, or save what is left with `snaphaul restore --salvage`"));
        }
        Ok((rebuilt, lost))
    }

    fn commit_again(&mut self, point: &Point, loss: &Loss, rebuilt: &Leaves) -> Result<()> {
        let committed = if self.dry_run {
            None
        } else {
            Some(recommit(self.context, &self.reader, point, rebuilt)?)
        };
        let new_point = committed.map(|point| point.id().to_string());
        for (object, why) in &loss.objects {
            let done = match &new_point {
                Some(id) => format!(
                    "the point was committed again as {id}, and {} forgotten",
                    point.id()
                ),
                None => "the point can be committed again".to_owned(),
            };
            self.report.repaired.push(Repaired {
                kind: "recommitted".to_owned(),
                object: object.clone(),
                volume: Some(point.manifest.volume.clone()),
                points: vec![point.id().to_string()],
                new_point: new_point.clone(),
                message: format!("{why}; {done}"),
            });
        }
        Ok(())
    }

    /// The slot holds the manifest; its copy is made the same.
    fn copy(&mut self, point: &Point, why: &str) -> Result<()> {
        let store = &self.context.repository.store;
        let copy = name::copy(&point.key);
        if !self.dry_run {
            let manifest = store.get(&name::slot(&point.key))?;
            replace(store.as_ref(), &copy, manifest)?;
        }
        self.report.repaired.push(Repaired {
            kind: "copied".to_owned(),
            object: copy,
            volume: Some(point.manifest.volume.clone()),
            points: vec![point.id().to_string()],
            new_point: None,
            message: format!(
                "{why}; {}",
                past(self.dry_run, "written again from the manifest")
            ),
        });
        Ok(())
    }

    fn give_up(&mut self, point: &Point, loss: &Loss, lost: &[DamagedPage]) {
        let manifest = &point.manifest;
        let chunk_size = u64::from(manifest.chunk_size);
        let clip = |chunk: u64| chunk.saturating_mul(chunk_size).min(manifest.size);
        let finding = |object: &str, message: String, ranges| VerifyFinding {
            kind: "lost".to_owned(),
            object: object.to_owned(),
            message,
            volume: Some(manifest.volume.clone()),
            points: vec![point.id().to_string()],
            ranges,
        };
        for page in lost {
            let chunks = page.chunks();
            let (start, end) = (clip(chunks.start), clip(chunks.end));
            let reason = if loss.liveness.is_some() {
                "what the segments hold does not prove what it said"
            } else {
                "without the liveness of the point nothing says which chunks were its"
            };
            self.report.lost.push(finding(
                page.page.split('#').next().unwrap_or(&page.page),
                format!(
                    "{page}; {reason}: the next backup of the volume writes the map anew, `snaphaul restore --salvage` saves the rest of this point"
                ),
                vec![(start, end - start)],
            ));
        }
        for (object, why) in &loss.objects {
            let message = format!(
                "{why}; the point cannot be committed again while parts of its map are lost"
            );
            self.report.lost.push(finding(object, message, Vec::new()));
        }
    }
}

impl Loss {
    fn object(&mut self, object: &str, why: &str) {
        self.objects.push((object.to_owned(), why.to_owned()));
    }
}

/// What an error says of an object, if it says that the object is lost.
fn lost_or(error: Error) -> Result<String> {
    if Losses::is_loss(&error) {
        Ok(crate::pipeline::restore::losses::describe(&error))
    } else {
        Err(error)
    }
}

/// What was done, or would be.
pub(super) fn past(dry_run: bool, done: &str) -> String {
    if dry_run {
        format!("it can be {done}")
    } else {
        format!("it was {done}")
    }
}
