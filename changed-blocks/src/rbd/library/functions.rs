//! The functions and structures of librados and librbd that are used, as the C headers declare them.
//!
//! Owns: signatures and layouts. Must not: call anything.

use std::ffi::{c_char, c_int, c_void};

use super::error::RbdError;
use super::{RADOS_FILE, RBD_FILE};

pub(super) type Rados = *mut c_void;
pub(super) type IoContext = *mut c_void;
pub(super) type RawImage = *mut c_void;
pub(super) type RawCompletion = *mut c_void;
pub(super) type RawRadosCompletion = *mut c_void;
/// `rados_callback_t`; null for none.
pub(super) type RadosCallback = Option<unsafe extern "C" fn(RawRadosCompletion, *mut c_void)>;
/// `int (*cb)(uint64_t offset, size_t len, int exists, void *arg)`.
pub(super) type DiffCallback = unsafe extern "C" fn(u64, usize, c_int, *mut c_void) -> c_int;
/// `rbd_callback_t`.
pub(super) type CompletionCallback = unsafe extern "C" fn(RawCompletion, *mut c_void);
/// `rbd_diff_iterate3`: image, id of the snapshot to start from, offset, length, flags, callback, its argument.
pub(super) type DiffIterate3 =
    unsafe extern "C" fn(RawImage, u64, u64, u64, u32, DiffCallback, *mut c_void) -> c_int;

/// `rbd_linked_image_spec_t`.
#[repr(C)]
pub(super) struct LinkedImage {
    pub(super) pool_id: i64,
    pub(super) pool_name: *mut c_char,
    pub(super) pool_namespace: *mut c_char,
    pub(super) image_id: *mut c_char,
    pub(super) image_name: *mut c_char,
    /// C's `bool`, read as a byte so that no value is invalid.
    pub(super) trash: u8,
}

/// `rbd_snap_spec_t`.
#[repr(C)]
pub(super) struct SnapSpec {
    pub(super) id: u64,
    pub(super) namespace_type: c_int,
    pub(super) name: *mut c_char,
}

/// `rbd_snap_info_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct SnapInfo {
    pub(super) id: u64,
    pub(super) size: u64,
    pub(super) name: *const c_char,
}

/// `rbd_image_info_t`, with `RBD_MAX_BLOCK_NAME_SIZE` 24 and `RBD_MAX_IMAGE_NAME_SIZE` 96.
#[repr(C)]
pub(super) struct ImageInfo {
    pub(super) size: u64,
    pub(super) obj_size: u64,
    pub(super) num_objs: u64,
    pub(super) order: c_int,
    pub(super) block_name_prefix: [c_char; 24],
    pub(super) parent_pool: i64,
    pub(super) parent_name: [c_char; 96],
}

/// `rbd_image_watcher_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RawWatcher {
    pub(super) addr: *mut c_char,
    pub(super) id: i64,
    pub(super) cookie: u64,
}

macro_rules! functions {
    ($($library:ident: $name:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// The addresses of all functions.
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> $result,)*
            /// Since Ceph 17.2.8, 18.2.5 and 19.2.2.
            pub(super) rbd_diff_iterate3: Option<DiffIterate3>,
        }

        impl Functions {
            /// Looks all functions up.
            ///
            /// # Safety
            /// The functions of these libraries have the signatures of this file, and the libraries are never unloaded.
            pub(super) unsafe fn find(
                rados: &libloading::Library,
                rbd: &libloading::Library,
            ) -> Result<Self, RbdError> {
                // SAFETY: the caller vouches for the signatures and for the life of the libraries.
                unsafe {
                    Ok(Self {
                        $($name: *functions!(@of $library, rados, rbd)
                            .get(concat!(stringify!($name), "\0").as_bytes())
                            .map_err(|_| RbdError::TooOld {
                                file: functions!(@file $library),
                                function: stringify!($name),
                            })?,)*
                        rbd_diff_iterate3: rbd.get(b"rbd_diff_iterate3\0").ok().map(|found| *found),
                    })
                }
            }
        }
    };
    (@of rados, $rados:ident, $rbd:ident) => { $rados };
    (@of rbd, $rados:ident, $rbd:ident) => { $rbd };
    (@file rados) => { RADOS_FILE };
    (@file rbd) => { RBD_FILE };
}

functions! {
    rados: rados_create2(*mut Rados, *const c_char, *const c_char, u64) -> c_int;
    rados: rados_conf_read_file(Rados, *const c_char) -> c_int;
    rados: rados_conf_parse_env(Rados, *const c_char) -> c_int;
    rados: rados_conf_set(Rados, *const c_char, *const c_char) -> c_int;
    rados: rados_connect(Rados) -> c_int;
    rados: rados_shutdown(Rados) -> ();
    rados: rados_cluster_fsid(Rados, *mut c_char, usize) -> c_int;
    rados: rados_ioctx_create(Rados, *const c_char, *mut IoContext) -> c_int;
    rados: rados_ioctx_create2(Rados, i64, *mut IoContext) -> c_int;
    rados: rados_ioctx_destroy(IoContext) -> ();
    rados: rados_ioctx_set_namespace(IoContext, *const c_char) -> ();
    rados: rados_ioctx_get_id(IoContext) -> i64;
    rados: rados_ioctx_snap_set_read(IoContext, u64) -> ();
    rados: rados_aio_create_completion2(*mut c_void, RadosCallback, *mut RawRadosCompletion) -> c_int;
    rados: rados_aio_stat(IoContext, *const c_char, RawRadosCompletion, *mut u64, *mut nix::libc::time_t) -> c_int;
    rados: rados_aio_wait_for_complete(RawRadosCompletion) -> c_int;
    rados: rados_aio_get_return_value(RawRadosCompletion) -> c_int;
    rados: rados_aio_get_version(RawRadosCompletion) -> u64;
    rados: rados_aio_release(RawRadosCompletion) -> ();
    rbd: rbd_version(*mut c_int, *mut c_int, *mut c_int) -> ();
    rbd: rbd_open(IoContext, *const c_char, *mut RawImage, *const c_char) -> c_int;
    rbd: rbd_open_read_only(IoContext, *const c_char, *mut RawImage, *const c_char) -> c_int;
    rbd: rbd_open_by_id(IoContext, *const c_char, *mut RawImage, *const c_char) -> c_int;
    rbd: rbd_open_by_id_read_only(IoContext, *const c_char, *mut RawImage, *const c_char) -> c_int;
    rbd: rbd_close(RawImage) -> c_int;
    rbd: rbd_stat(RawImage, *mut ImageInfo, usize) -> c_int;
    rbd: rbd_get_size(RawImage, *mut u64) -> c_int;
    rbd: rbd_get_features(RawImage, *mut u64) -> c_int;
    rbd: rbd_get_flags(RawImage, *mut u64) -> c_int;
    rbd: rbd_get_data_pool_id(RawImage) -> i64;
    rbd: rbd_get_block_name_prefix(RawImage, *mut c_char, usize) -> c_int;
    rbd: rbd_get_id(RawImage, *mut c_char, usize) -> c_int;
    rbd: rbd_get_name(RawImage, *mut c_char, *mut usize) -> c_int;
    rbd: rbd_get_stripe_unit(RawImage, *mut u64) -> c_int;
    rbd: rbd_get_stripe_count(RawImage, *mut u64) -> c_int;
    rbd: rbd_get_overlap(RawImage, *mut u64) -> c_int;
    rbd: rbd_get_parent(RawImage, *mut LinkedImage, *mut SnapSpec) -> c_int;
    rbd: rbd_linked_image_spec_cleanup(*mut LinkedImage) -> ();
    rbd: rbd_snap_spec_cleanup(*mut SnapSpec) -> ();
    rbd: rbd_metadata_get(RawImage, *const c_char, *mut c_char, *mut usize) -> c_int;
    rbd: rbd_snap_set_by_id(RawImage, u64) -> c_int;
    rbd: rbd_snap_list(RawImage, *mut SnapInfo, *mut c_int) -> c_int;
    rbd: rbd_snap_list_end(*mut SnapInfo) -> ();
    rbd: rbd_snap_get_namespace_type(RawImage, u64, *mut c_int) -> c_int;
    rbd: rbd_snap_get_trash_namespace(RawImage, u64, *mut c_char, usize) -> c_int;
    rbd: rbd_snap_get_id(RawImage, *const c_char, *mut u64) -> c_int;
    rbd: rbd_watchers_list(RawImage, *mut RawWatcher, *mut usize) -> c_int;
    rbd: rbd_watchers_list_cleanup(*mut RawWatcher, usize) -> ();
    rbd: rbd_diff_iterate2(RawImage, *const c_char, u64, u64, u8, u8, DiffCallback, *mut c_void) -> c_int;
    rbd: rbd_aio_create_completion(*mut c_void, CompletionCallback, *mut RawCompletion) -> c_int;
    rbd: rbd_aio_get_return_value(RawCompletion) -> isize;
    rbd: rbd_aio_release(RawCompletion) -> ();
    rbd: rbd_aio_readv(RawImage, *const nix::libc::iovec, c_int, u64, RawCompletion) -> c_int;
    rbd: rbd_aio_write(RawImage, u64, usize, *const c_char, RawCompletion) -> c_int;
    rbd: rbd_aio_write_zeroes(RawImage, u64, usize, RawCompletion, c_int, c_int) -> c_int;
    rbd: rbd_flush(RawImage) -> c_int;
}
