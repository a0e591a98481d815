//! The diff of a part of an image.
//!
//! Owns: the callback that C calls, which never unwinds into C. Must not: interpret the answer.
//!
//! The parent of a clone is never asked through librbd: `handle_list_from_parent` (librbd/io/ObjectRequest.cc) forgets an
//! error of the parent, and an answer without it is too short.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::c_string;
use super::error::{RbdError, check};
use super::image::Image;

/// `RBD_DIFF_ITERATE_FLAG_WHOLE_OBJECT`.
const WHOLE_OBJECT: u32 = 1 << 1;

/// Where a diff starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffFrom<'a> {
    /// Before the image was made: everything it ever wrote.
    Beginning,
    /// At a snapshot, by id; by name where the library cannot, which must be that of this id.
    Snapshot {
        /// The id.
        id: u64,
        /// The name.
        name: &'a str,
    },
}

/// One range of a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiffRange {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether the image holds data there; otherwise it became a hole, through which a parent may show.
    pub exists: bool,
}

type Each<'a> = dyn FnMut(DiffRange) + Send + 'a;

struct Receiver<'a> {
    each: &'a mut Each<'a>,
    panic: Option<Box<dyn Any + Send>>,
}

impl Image {
    /// Tells `each` of the ranges in `[offset, offset + len)` that changed up to the snapshot that this image is open at, in
    /// no order, without the parent's. `len` is cut at the end of the image.
    ///
    /// `whole_object` answers in objects, from the object maps where they are valid: fast, and wrong in some releases.
    ///
    /// # Errors
    /// Where the snapshot does not exist or is younger, or the cluster does not answer.
    pub fn diff<'a>(
        &self,
        from: DiffFrom<'_>,
        window: std::ops::Range<u64>,
        whole_object: bool,
        each: &'a mut Each<'a>,
    ) -> Result<(), RbdError> {
        // An offset and a length that overflow make some releases loop for ever.
        let end = window.end.min(self.size()?);
        if window.start >= end {
            return Ok(());
        }
        let receiver = Mutex::new(Receiver { each, panic: None });
        let argument: *const c_void = ptr::from_ref(&receiver).cast();
        let code = self.iterate(from, window.start..end, whole_object, argument.cast_mut())?;
        let receiver = receiver
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(panic) = receiver.panic {
            panic::resume_unwind(panic);
        }
        check(code, || {
            let start = window.start;
            format!("ask for the changes of {} at {start:#x}", self.shown())
        })
        .map(drop)
    }

    /// `argument` is a `Mutex<Receiver>` that outlives the call.
    fn iterate(
        &self,
        from: DiffFrom<'_>,
        window: std::ops::Range<u64>,
        whole_object: bool,
        argument: *mut c_void,
    ) -> Result<c_int, RbdError> {
        let functions = &self.library().functions;
        let (offset, len) = (window.start, window.end - window.start);
        if let (Some(iterate), DiffFrom::Snapshot { id, .. }) = (functions.rbd_diff_iterate3, from)
        {
            let flags = if whole_object { WHOLE_OBJECT } else { 0 };
            // SAFETY: an open image; librbd calls `told` with this argument during the call only.
            return Ok(unsafe { iterate(self.raw(), id, offset, len, flags, told, argument) });
        }
        let name = match from {
            DiffFrom::Beginning => None,
            DiffFrom::Snapshot { name, .. } => Some(c_string(name)?),
        };
        let name = name.as_ref().map_or(ptr::null(), |name| name.as_ptr());
        // SAFETY: an open image; null for the beginning, else a C string that lives during the call; librbd calls `told`
        // with this argument during the call only.
        Ok(unsafe {
            (functions.rbd_diff_iterate2)(
                self.raw(),
                name,
                offset,
                len,
                0,
                u8::from(whole_object),
                told,
                argument,
            )
        })
    }
}

/// What librbd calls for each range. A panic is kept and thrown again on the Rust side.
///
/// # Safety
/// `argument` points to a `Mutex<Receiver>` that lives during the call.
unsafe extern "C" fn told(offset: u64, len: usize, exists: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: the caller vouches for the pointer. The mutex keeps this sound whichever of librbd's threads calls.
    let receiver = unsafe { &*argument.cast_const().cast::<Mutex<Receiver<'_>>>() };
    let mut receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
    if receiver.panic.is_some() {
        return -nix::libc::ECANCELED;
    }
    let range = DiffRange {
        offset,
        len: len as u64,
        exists: exists != 0,
    };
    match panic::catch_unwind(AssertUnwindSafe(|| (receiver.each)(range))) {
        Ok(()) => 0,
        Err(panic) => {
            receiver.panic = Some(panic);
            -nix::libc::ECANCELED
        }
    }
}
