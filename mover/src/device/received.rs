//! Block devices that another process opened and passed on through a socket.
//!
//! ```text
//!   holder: open twice ──► one line, two descriptors (SCM_RIGHTS) ──► agent: ReceivedDevice ──► Source | Target
//! ```
//!
//! Owns: taking descriptors out of a control message, and what they must be. Must not: know who sends them or why.
//!
//! A descriptor carries the permission it was opened with: the receiver needs no right to the device, and may have none. So nothing
//! here opens anything again, not even through `/proc`. Two descriptors come: one bypasses the page cache (`O_DIRECT`) and carries
//! the data, one does not and serves what is not aligned.

#![expect(
    unsafe_code,
    reason = "a received descriptor is a number until somebody owns it"
)]

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::system;

/// Most descriptors that one message can carry (`SCM_MAX_FD` of the kernel): with room for all, none is cut off and lost.
const DESCRIPTORS: usize = 253;

/// A block device that another process opened. Clones share the descriptors.
#[derive(Clone, Debug)]
pub struct ReceivedDevice(Arc<Pair>);

#[derive(Debug)]
struct Pair {
    direct: File,
    buffered: File,
    size: u64,
    number: (u64, u64),
    is_writable: bool,
}

impl PartialEq for ReceivedDevice {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ReceivedDevice {}

impl ReceivedDevice {
    /// Checks what came: two descriptors of one block device, the first for direct I/O, both open for the same.
    ///
    /// # Errors
    /// `InvalidData` for anything else; what the device answers.
    pub fn new(descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let refuse = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        let [direct, buffered]: [OwnedFd; 2] = descriptors
            .try_into()
            .map_err(|_| refuse("there are not exactly two descriptors"))?;
        let (direct, buffered) = (File::from(direct), File::from(buffered));
        let (first, second) = (direct.metadata()?, buffered.metadata()?);
        if !first.file_type().is_block_device() || !second.file_type().is_block_device() {
            return Err(refuse("it is no block device"));
        }
        if first.rdev() != second.rdev() {
            return Err(refuse("the descriptors are of two devices"));
        }
        let (flags, others) = (flags(&direct)?, flags(&buffered)?);
        if !flags.contains(OFlag::O_DIRECT) || others.contains(OFlag::O_DIRECT) {
            return Err(refuse("the first descriptor alone must be for direct I/O"));
        }
        let access = |flags: OFlag| flags.bits() & libc::O_ACCMODE;
        if access(flags) != access(others) || access(flags) == libc::O_WRONLY {
            return Err(refuse(
                "both descriptors must be open for the same, reading included",
            ));
        }
        let size = system::block_device_size(&buffered)?;
        let number = (
            libc::major(first.rdev()).into(),
            libc::minor(first.rdev()).into(),
        );
        Ok(Self(Arc::new(Pair {
            direct,
            buffered,
            size,
            number,
            is_writable: access(flags) == libc::O_RDWR,
        })))
    }

    /// Bytes of the device.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Major and minor number.
    #[must_use]
    pub fn number(&self) -> (u64, u64) {
        self.0.number
    }

    /// Whether it was opened for writing, too.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.0.is_writable
    }

    /// Own numbers of the two descriptors: direct, buffered.
    pub(super) fn descriptors(&self) -> io::Result<(File, File)> {
        Ok((self.0.direct.try_clone()?, self.0.buffered.try_clone()?))
    }
}

/// Bytes of a block device that is open.
///
/// # Errors
/// What the kernel answers, for anything but a block device.
pub fn size_of(device: &File) -> io::Result<u64> {
    system::block_device_size(device)
}

fn flags(file: &File) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?))
}

/// Receives bytes and the descriptors that came with them; 0 bytes at the end of the stream. Waits as the stream was told to.
///
/// # Errors
/// What the socket answers.
pub fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([std::os::fd::RawFd; DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel has just installed this number in our table for this message, nobody else knows it, and each
                // number of a message is taken once.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;
    use crate::device::loop_device::LoopDevice;

    fn open(device: &LoopDevice, write: bool, direct: bool) -> OwnedFd {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        File::options()
            .read(true)
            .write(write)
            .custom_flags(flags)
            .open(device.path())
            .unwrap()
            .into()
    }

    #[test]
    fn only_the_two_descriptors_of_one_device_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image");
        File::create(&file).unwrap().set_len(1 << 20).unwrap();
        let device = LoopDevice::attach(&file, 512).unwrap();
        let taken = ReceivedDevice::new(vec![
            open(&device, false, true),
            open(&device, false, false),
        ]);
        let taken = taken.unwrap();
        assert_eq!((taken.size(), taken.is_writable()), (1 << 20, false));
        for (what, descriptors) in [
            ("one", vec![open(&device, false, true)]),
            (
                "the wrong order",
                vec![open(&device, false, false), open(&device, false, true)],
            ),
            (
                "two ways",
                vec![open(&device, true, true), open(&device, false, false)],
            ),
            (
                "a file",
                vec![
                    File::open(&file).unwrap().into(),
                    open(&device, false, false),
                ],
            ),
        ] {
            let error = ReceivedDevice::new(descriptors).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
        }
    }
}
