//! Asynchronous reads and writes that own their buffers until librbd is done with them.
//!
//! ```text
//!   submit ──► Operation in a box (token, buffer) ──► librbd … ──► finished() on a thread of librbd ──► Finished list
//!                                                                                                   wait ◄──┘
//! ```
//!
//! Owns: the memory that librbd reads and writes, and the callback. Must not: check bounds of the image.

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::io;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::Library;
use super::functions::RawCompletion;
use super::image::Image;

/// What is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rbd) enum Transfer {
    Read,
    Write,
    WriteZeroes,
}

/// One request. Reads and writes have a buffer of at least `len` bytes.
#[derive(Debug)]
pub(in crate::rbd) struct Request<B> {
    pub(in crate::rbd) transfer: Transfer,
    pub(in crate::rbd) token: u64,
    pub(in crate::rbd) offset: u64,
    pub(in crate::rbd) len: usize,
    pub(in crate::rbd) buffer: Option<B>,
}

/// A request that is over.
#[derive(Debug)]
pub(in crate::rbd) struct Finished<B> {
    pub(in crate::rbd) request: Request<B>,
    pub(in crate::rbd) result: io::Result<()>,
}

/// Where the callback leaves what is over. It holds at most what was submitted and not fetched.
struct Completed<B> {
    list: Mutex<VecDeque<Finished<B>>>,
    one_more: Condvar,
}

/// A request while librbd has it. It lives in a box whose address is the callback's argument.
struct Operation<B> {
    request: Request<B>,
    completed: Arc<Completed<B>>,
    library: Arc<Library>,
}

/// The requests on one image. Dropping it waits for all of them, so that no buffer is freed under librbd.
///
/// Leaking it leaks the image and the buffers with it, which is as sound.
pub(in crate::rbd) struct InFlight<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static> {
    image: Arc<Image>,
    completed: Arc<Completed<B>>,
    pending: usize,
}

impl<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static> fmt::Debug for InFlight<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InFlight({:?}, {} pending)", self.image, self.pending)
    }
}

impl<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static> InFlight<B> {
    pub(in crate::rbd) fn new(image: Arc<Image>) -> Self {
        Self {
            image,
            completed: Arc::new(Completed {
                list: Mutex::new(VecDeque::new()),
                one_more: Condvar::new(),
            }),
            pending: 0,
        }
    }

    pub(in crate::rbd) fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Requests that were handed in and not fetched.
    pub(in crate::rbd) fn pending(&self) -> usize {
        self.pending
    }

    /// Hands a request that is over already to the next [`wait`](Self::wait).
    pub(in crate::rbd) fn finish(&mut self, request: Request<B>, result: io::Result<()>) {
        self.pending += 1;
        self.completed.put(Finished { request, result });
    }

    /// Starts a request. Everything that fails comes back through [`wait`](Self::wait).
    pub(in crate::rbd) fn submit(&mut self, request: Request<B>) {
        let room = |request: &Request<B>| match (&request.buffer, request.transfer) {
            (_, Transfer::WriteZeroes) => true,
            (Some(buffer), _) => buffer.as_ref().len() >= request.len,
            (None, _) => false,
        };
        if !room(&request) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "the buffer is too short");
            return self.finish(request, Err(error));
        }
        self.pending += 1;
        let operation = Box::new(Operation {
            request,
            completed: Arc::clone(&self.completed),
            library: Arc::clone(self.image.library()),
        });
        let operation = Box::into_raw(operation);
        // SAFETY: a box that was just leaked for the callback.
        let code = unsafe { start(&self.image, operation) };
        if code < 0 {
            // SAFETY: librbd refused, so the callback never runs and the box is still ours alone.
            let operation = *unsafe { Box::from_raw(operation) };
            operation.finish(Err(io::Error::from_raw_os_error(code.saturating_neg())));
        }
    }

    /// Sleeps until a request is over; `None` where none is pending.
    pub(in crate::rbd) fn wait(&mut self) -> Option<Finished<B>> {
        if self.pending == 0 {
            return None;
        }
        let list = self.completed.lock();
        let mut list = self
            .completed
            .one_more
            .wait_while(list, |list| list.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let finished = list.pop_front();
        self.pending -= usize::from(finished.is_some());
        finished
    }
}

impl<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static> Drop for InFlight<B> {
    fn drop(&mut self) {
        while self.wait().is_some() {}
    }
}

/// Gives a request to librbd; a negative errno where it does not take it, and then the callback never runs.
///
/// # Safety
/// `operation` is a leaked box that nobody else uses; after success it belongs to the callback.
unsafe fn start<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static>(
    image: &Image,
    operation: *mut Operation<B>,
) -> c_int {
    let functions = &image.library().functions;
    let mut completion: RawCompletion = ptr::null_mut();
    // SAFETY: `finished` is made for this argument.
    let code = unsafe {
        (functions.rbd_aio_create_completion)(operation.cast(), finished::<B>, &raw mut completion)
    };
    if code < 0 {
        return code;
    }
    // SAFETY: nobody else uses the operation yet. The pointers taken here stay valid: the box is not touched or moved until
    // the callback takes it back.
    let (transfer, offset, len, bytes) = unsafe {
        let request = &mut (*operation).request;
        let bytes = match (&mut request.buffer, request.transfer) {
            (Some(buffer), Transfer::Read) => buffer.as_mut().as_mut_ptr(),
            (Some(buffer), Transfer::Write) => buffer.as_ref().as_ptr().cast_mut(),
            _ => ptr::null_mut(),
        };
        (request.transfer, request.offset, request.len, bytes)
    };
    // SAFETY: an open image that outlives the request (see `InFlight`); `len` bytes behind `bytes` (see `submit`) that stay
    // until the callback ran; a new completion.
    let code = unsafe {
        match transfer {
            Transfer::Read => {
                (functions.rbd_aio_read)(image.raw(), offset, len, bytes.cast(), completion)
            }
            Transfer::Write => (functions.rbd_aio_write)(
                image.raw(),
                offset,
                len,
                bytes.cast_const().cast(),
                completion,
            ),
            Transfer::WriteZeroes => {
                (functions.rbd_aio_write_zeroes)(image.raw(), offset, len, completion, 0, 0)
            }
        }
    };
    if code < 0 {
        // SAFETY: a completion that librbd did not take.
        unsafe { (functions.rbd_aio_release)(completion) };
    }
    code
}

/// What librbd calls when a request is over, on one of its threads. Nothing in it can panic.
///
/// # Safety
/// `argument` is the leaked box of the operation that `completion` was made for, and this runs once for it.
unsafe extern "C" fn finished<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static>(
    completion: RawCompletion,
    argument: *mut c_void,
) {
    // SAFETY: librbd is done with the buffer and calls this once, so the box is ours again.
    let operation = *unsafe { Box::from_raw(argument.cast::<Operation<B>>()) };
    let functions = &operation.library.functions;
    // SAFETY: a finished completion, released once and not used again; librbd allows both in the callback.
    let code = unsafe {
        let code = (functions.rbd_aio_get_return_value)(completion);
        (functions.rbd_aio_release)(completion);
        code
    };
    let result = operation.request.result(code);
    operation.finish(result);
}

impl<B> Request<B> {
    /// What librbd's return value means: a negative errno, or for a read the number of bytes.
    fn result(&self, code: isize) -> io::Result<()> {
        match usize::try_from(code) {
            Err(_) => {
                let errno = i32::try_from(code.saturating_neg()).unwrap_or(nix::libc::EIO);
                Err(io::Error::from_raw_os_error(errno))
            }
            Ok(bytes) if self.transfer == Transfer::Read && bytes != self.len => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(_) => Ok(()),
        }
    }
}

impl<B> Operation<B> {
    fn finish(self, result: io::Result<()>) {
        let Self {
            request, completed, ..
        } = self;
        completed.put(Finished { request, result });
    }
}

impl<B> Completed<B> {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Finished<B>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, finished: Finished<B>) {
        self.lock().push_back(finished);
        self.one_more.notify_one();
    }
}
