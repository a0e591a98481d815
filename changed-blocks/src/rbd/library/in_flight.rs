//! Asynchronous reads and writes that own their buffers until librbd is done with them.
//!
//! ```text
//!   submit ──► Operation in a box (requests, buffers) ──► librbd … ──► finished() on a thread of librbd ──► Finished list
//!                                                                                                        wait ◄──┘
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

/// One request, or reads of adjacent ranges, while librbd has them. It lives in a box whose address is the callback's argument.
struct Operation<B> {
    requests: Vec<Request<B>>,
    /// Where each of the requests' bytes go, for reads.
    places: Vec<nix::libc::iovec>,
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
        self.completed.put([Finished { request, result }]);
    }

    /// Starts a request, or several reads as one: each begins where the one before it ends. Everything that fails comes back
    /// through [`wait`](Self::wait).
    pub(in crate::rbd) fn submit(&mut self, requests: Vec<Request<B>>) {
        let Some(first) = requests.first() else {
            return;
        };
        let (transfer, count) = (first.transfer, requests.len());
        let fits = |request: &Request<B>| match (&request.buffer, request.transfer) {
            (_, Transfer::WriteZeroes) => count == 1,
            (Some(buffer), _) => buffer.as_ref().len() >= request.len,
            (None, _) => false,
        };
        let is_one = count == 1 || transfer == Transfer::Read && are_adjacent(&requests);
        if !is_one || !requests.iter().all(fits) {
            for request in requests {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "the buffer is too short");
                self.finish(request, Err(error));
            }
            return;
        }
        self.pending += count;
        let operation = Box::new(Operation {
            places: Vec::with_capacity(count),
            requests,
            completed: Arc::clone(&self.completed),
            library: Arc::clone(self.image.library()),
        });
        let operation = Box::into_raw(operation);
        // SAFETY: a box that was just leaked for the callback.
        let code = unsafe { start(&self.image, operation) };
        if code < 0 {
            // SAFETY: librbd refused, so the callback never runs and the box is still ours alone.
            let operation = *unsafe { Box::from_raw(operation) };
            operation.finish(isize::try_from(code).unwrap_or(isize::MIN));
        }
    }

    /// The next request that is over, if there is one already.
    pub(in crate::rbd) fn poll(&mut self) -> Option<Finished<B>> {
        let finished = self.completed.lock().pop_front();
        self.pending -= usize::from(finished.is_some());
        finished
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
    // SAFETY: nobody else uses the operation yet. The pointers taken below stay valid: the box and its lists are not touched or
    // moved until the callback takes them back.
    let Operation {
        requests, places, ..
    } = unsafe { &mut *operation };
    let (transfer, offset, len) = (requests[0].transfer, requests[0].offset, requests[0].len);
    // SAFETY: an open image that outlives the requests (see `InFlight`); bytes behind each pointer (see `submit`) that stay
    // until the callback ran, as does the list of places; a new completion.
    let code = unsafe {
        match transfer {
            Transfer::Read => {
                places.extend(requests.iter_mut().map(place));
                let count = c_int::try_from(places.len()).unwrap_or(c_int::MAX);
                (functions.rbd_aio_readv)(image.raw(), places.as_ptr(), count, offset, completion)
            }
            Transfer::Write => {
                let bytes = requests[0].buffer.as_ref().map(|buffer| buffer.as_ref());
                let bytes = bytes.map_or(ptr::null(), <[u8]>::as_ptr);
                (functions.rbd_aio_write)(image.raw(), offset, len, bytes.cast(), completion)
            }
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

/// Whether each request begins where the one before it ends.
fn are_adjacent<B>(requests: &[Request<B>]) -> bool {
    requests.windows(2).all(|pair| {
        let len = u64::try_from(pair[0].len).ok();
        len.and_then(|len| pair[0].offset.checked_add(len)) == Some(pair[1].offset)
    })
}

/// Where the bytes of a read go.
fn place<B: AsMut<[u8]>>(request: &mut Request<B>) -> nix::libc::iovec {
    let bytes = request.buffer.as_mut().map(|buffer| buffer.as_mut());
    nix::libc::iovec {
        iov_base: bytes.map_or(ptr::null_mut(), |bytes| bytes.as_mut_ptr().cast()),
        iov_len: request.len,
    }
}

/// What librbd calls when an operation is over, on one of its threads. Nothing in it can panic.
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
    operation.finish(code);
}

impl<B> Operation<B> {
    /// Hands the requests over with what librbd's return value means: a negative errno, or for reads the number of bytes.
    fn finish(self, code: isize) {
        let read: usize = self.requests.iter().map(|request| request.len).sum();
        let finished = self.requests.into_iter().map(|request| {
            let result = match usize::try_from(code) {
                Err(_) => {
                    let errno = i32::try_from(code.saturating_neg()).unwrap_or(nix::libc::EIO);
                    Err(io::Error::from_raw_os_error(errno))
                }
                Ok(bytes) if request.transfer == Transfer::Read && bytes != read => {
                    Err(io::ErrorKind::UnexpectedEof.into())
                }
                Ok(_) => Ok(()),
            };
            Finished { request, result }
        });
        self.completed.put(finished);
    }
}

impl<B> Completed<B> {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Finished<B>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All at once: whoever takes the first may ask for more only when it finds no second one.
    fn put(&self, finished: impl IntoIterator<Item = Finished<B>>) {
        self.lock().extend(finished);
        self.one_more.notify_one();
    }
}
