//! Which RADOS objects an image has of its own at its snapshot, and whether one was written.
//!
//! Owns: asking for objects by name. Must not: read them.
//!
//! librbd cannot tell this: a diff says nothing of an object of no length, yet on a clone just that hides the parent's bytes.

use std::ffi::{CString, c_int};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ptr;

use super::cluster::Pool;
use super::error::{RbdError, check};
use super::functions::RawRadosCompletion;
use super::image::Image;
use super::text_in;

/// Requests at once: enough to keep an OSD busy, few enough to forget.
const DEPTH: usize = 64;

/// The objects of one image at one snapshot.
pub struct Objects {
    /// The pool of the data, which reads at the snapshot.
    pool: Pool,
    prefix: String,
    object_size: u64,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Objects({})", self.prefix)
    }
}

/// One question. The library writes the size and the time of the object, which nobody needs, until it is answered.
struct Question {
    completion: RawRadosCompletion,
    size: u64,
    time: nix::libc::time_t,
}

/// What is known of one object.
struct Answer {
    /// 0 or a negative errno.
    code: c_int,
    /// What every write raises; of no meaning where the code is an error.
    version: u64,
}

impl Objects {
    /// The objects of `image` at the snapshot that it is open at.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn of(image: &Image) -> Result<Self, RbdError> {
        let functions = &image.library().functions;
        // SAFETY: an open image.
        let data_pool = unsafe { (functions.rbd_get_data_pool_id)(image.raw()) };
        let mut prefix = [0_u8; 256];
        // SAFETY: an open image and a buffer with its length.
        let code = unsafe {
            let buffer = prefix.as_mut_ptr().cast();
            (functions.rbd_get_block_name_prefix)(image.raw(), buffer, prefix.len())
        };
        check(code, || {
            format!("ask how the objects of {} are named", image.shown())
        })?;
        let pool = image.pool();
        Ok(Self {
            pool: pool
                .cluster()
                .pool_at(data_pool, pool.namespace(), image.snapshot())?,
            prefix: text_in(&prefix),
            object_size: image.object_size()?,
        })
    }

    /// Size of an object in bytes.
    #[must_use]
    pub fn object_size(&self) -> u64 {
        self.object_size
    }

    /// Whether each of these objects, by number, exists.
    ///
    /// # Errors
    /// Where the cluster does not answer or refuses.
    pub fn exist(&self, numbers: &[u64]) -> Result<Vec<bool>, RbdError> {
        let mut answers = Vec::with_capacity(numbers.len());
        for batch in numbers.chunks(DEPTH) {
            for (number, answer) in batch.iter().zip(self.ask(batch)?) {
                answers.push(self.exists(*number, &answer)?);
            }
        }
        Ok(answers)
    }

    /// A number that stays the same as long as nobody writes, discards or removes any of the first `count` objects.
    ///
    /// # Errors
    /// Where the cluster does not answer or refuses.
    pub fn digest(&self, count: u64) -> Result<u64, RbdError> {
        let mut digest = DefaultHasher::new();
        let mut numbers = Vec::with_capacity(DEPTH);
        let mut next = 0;
        while next < count {
            numbers.clear();
            numbers.extend((next..count).take(DEPTH));
            next += numbers.len() as u64;
            for (number, answer) in numbers.iter().zip(self.ask(&numbers)?) {
                let version = self.exists(*number, &answer)?.then_some(answer.version);
                version.hash(&mut digest);
            }
        }
        Ok(digest.finish())
    }

    fn exists(&self, number: u64, answer: &Answer) -> Result<bool, RbdError> {
        if answer.code == -nix::libc::ENOENT {
            return Ok(false);
        }
        check(answer.code, || {
            format!("look for the object {}", self.name(number))
        })?;
        Ok(true)
    }

    fn name(&self, number: u64) -> String {
        format!("{}.{number:016x}", self.prefix)
    }

    /// The answers to at most [`DEPTH`] questions that are asked at once.
    fn ask(&self, numbers: &[u64]) -> Result<Vec<Answer>, RbdError> {
        let names: Vec<CString> = numbers
            .iter()
            .map(|number| super::c_string(&self.name(*number)))
            .collect::<Result<_, _>>()?;
        let functions = &self.pool.library().functions;
        // Boxed, so that the places which the library writes to stay where they are.
        let mut questions: Vec<Box<Question>> = Vec::with_capacity(names.len());
        let mut failed = 0;
        for name in &names {
            let mut question = Box::new(Question {
                completion: ptr::null_mut(),
                size: 0,
                time: 0,
            });
            // SAFETY: no callback, and a place for the result.
            failed = unsafe {
                (functions.rados_aio_create_completion2)(
                    ptr::null_mut(),
                    None,
                    &raw mut question.completion,
                )
            };
            if failed < 0 {
                break;
            }
            // SAFETY: an open context, a C string that lives until all is answered, a new completion, and two places in a
            // box that is kept until the answer came: all questions of the list are waited for below.
            failed = unsafe {
                (functions.rados_aio_stat)(
                    self.pool.raw(),
                    name.as_ptr(),
                    question.completion,
                    &raw mut question.size,
                    &raw mut question.time,
                )
            };
            if failed < 0 {
                // SAFETY: a completion that the library did not take.
                unsafe { (functions.rados_aio_release)(question.completion) };
                break;
            }
            questions.push(question);
        }
        let answers = questions
            .iter()
            // SAFETY: each question is in flight; it is waited for, read and released once.
            .map(|question| unsafe {
                (functions.rados_aio_wait_for_complete)(question.completion);
                let answer = Answer {
                    code: (functions.rados_aio_get_return_value)(question.completion),
                    version: (functions.rados_aio_get_version)(question.completion),
                };
                (functions.rados_aio_release)(question.completion);
                answer
            })
            .collect();
        check(failed, || format!("look for objects of {}", self.prefix))?;
        Ok(answers)
    }
}

impl Image {
    /// A number that stays the same as long as nobody writes to the image, whoever has it open and whatever its clock says:
    /// made from the versions of its objects, each of which is asked for.
    ///
    /// # Errors
    /// Where the cluster does not answer or refuses.
    pub fn digest_of_versions(&self) -> Result<u64, RbdError> {
        let objects = Objects::of(self)?;
        let stripes = self.stripe_count()?.max(1);
        let set = objects.object_size().max(1).saturating_mul(stripes);
        objects.digest(self.size()?.div_ceil(set).saturating_mul(stripes))
    }
}
