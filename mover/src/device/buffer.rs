//! Page-aligned memory that direct I/O reads into and writes from, and the test for zeros.
//!
//! Owns: the allocation, from mapping to unmapping, and the mark that says in which ring it is registered. Must not: do
//! I/O, or pool buffers: whoever holds one decides when it goes.

#![expect(
    unsafe_code,
    reason = "page-aligned memory comes from mmap and is seen as a slice"
)]

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

use bytes::Bytes;
use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Alignment of every buffer and the unit their length is rounded up to, in bytes.
///
/// The largest logical block size in use (4Kn disks); what is aligned to it suits 512-byte sectors as well.
pub const ALIGNMENT: usize = 4096;

/// Bytes looked at in one step of [`is_zero`]: enough to keep the vector units busy, few enough to stop early.
const ZERO_STEP: usize = 256;

/// Owned memory aligned to [`ALIGNMENT`], zero when new.
///
/// Dereferences to its whole capacity. The memory is mapped on its own, so pages never touched cost nothing and a
/// dropped buffer goes back to the system at once.
pub struct AlignedBuffer {
    memory: NonNull<u8>,
    capacity: NonZeroUsize,
    registration: Option<Registration>,
}

/// Names the ring that pinned a buffer's pages, and its slot there.
///
/// It travels inside the buffer, never derived from the address: freed memory may come back at the same address on other
/// pages, and a fixed read would then fill the old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) ring: u64,
    pub(super) slot: u16,
}

impl AlignedBuffer {
    /// Maps a zeroed buffer of `len` bytes, rounded up to a multiple of [`ALIGNMENT`] and at least that.
    ///
    /// Ends the process where memory cannot be had, as any other allocation does.
    ///
    /// # Panics
    /// If `len` is above `isize::MAX`, which no address space holds.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), ALIGNMENT)
            .expect("a length that fits the address space")
            .pad_to_align();
        let capacity = NonZeroUsize::new(layout.size()).expect("rounded up from at least one");
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_ANONYMOUS;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice overlaps no memory in use.
        match unsafe { mmap_anonymous(None, capacity, protection, flags) } {
            Ok(memory) => Self {
                memory: memory.cast(),
                capacity,
                registration: None,
            },
            Err(_) => handle_alloc_error(layout),
        }
    }

    /// Turns `range` of the buffer into shared bytes without copying; the memory goes with the last clone.
    ///
    /// # Panics
    /// If `range` is not inside the capacity.
    #[must_use]
    pub fn into_bytes(self, range: Range<usize>) -> Bytes {
        Bytes::from_owner(self).slice(range)
    }

    pub(super) fn registration(&self) -> Option<Registration> {
        self.registration
    }

    pub(super) fn set_registration(&mut self, registration: Option<Registration>) {
        self.registration = registration;
    }
}

impl AsMut<[u8]> for AlignedBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `memory` is a readable mapping of `capacity` initialised bytes that lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.capacity.get()) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` means that nobody else sees the memory.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.capacity.get()) }
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; no reference into it outlives `self`. It cannot fail for a whole
        // mapping, and if it did the memory would stay mapped, which is sound.
        let _ = unsafe { munmap(self.memory.cast::<c_void>(), self.capacity.get()) };
    }
}

// SAFETY: the buffer owns its memory alone, as a `Box<[u8]>` does; an address has no thread.
unsafe impl Send for AlignedBuffer {}
// SAFETY: a shared reference gives reading only.
unsafe impl Sync for AlignedBuffer {}

impl fmt::Debug for AlignedBuffer {
    /// Length only: contents are user data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer")
            .field("capacity", &self.capacity)
            .field("registration", &self.registration)
            .finish()
    }
}

/// Whether every byte is zero. Stops within 256 bytes of the first one that is not; true for an empty slice.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<ZERO_STEP>();
    // Without a branch inside a step the fold becomes a few wide ORs.
    let zero_step = |step: &[u8; ZERO_STEP]| step.iter().fold(0, |any, byte| any | byte) == 0;
    steps.iter().all(zero_step) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
