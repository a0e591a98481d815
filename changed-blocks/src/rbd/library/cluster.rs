//! Connections to a cluster, and its pools.
//!
//! Owns: connecting with bounded waits, and the end of connections. Must not: open images.

use std::ffi::{CString, c_char};
use std::fmt;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::error::{RbdError, check};
use super::functions::{IoContext, Rados};
use super::{Library, c_string, text_in};

/// A monitor or OSD that is silent for so long fails the call; Ceph's default waits for ever.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);

/// Objects that librbd asks for at once in a diff; its default of 10 leaves a cluster idle.
const DIFF_DEPTH: &str = "32";

/// How a cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    /// `ceph.conf`; where Ceph's programs look where `None`: `CEPH_CONF`, then `/etc/ceph`.
    pub conf: Option<PathBuf>,
    /// The user as `client.ID`.
    pub user: String,
    /// Name of the cluster, part of the default file names.
    pub cluster: String,
    /// File of the user's key; what the configuration says where `None`.
    pub keyring: Option<PathBuf>,
    /// After how long a silent monitor or OSD fails a call. Rounded up to seconds.
    pub timeout: Duration,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            conf: None,
            user: "client.admin".to_owned(),
            cluster: "ceph".to_owned(),
            keyring: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl ClusterOptions {
    /// What `CEPH_ARGS` says of user, cluster, configuration and keyring; the library reads its other options itself.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_arguments(&std::env::var("CEPH_ARGS").unwrap_or_default())
    }

    /// The same for a given `CEPH_ARGS`. Unknown words are passed over, as Ceph's own programs do.
    #[must_use]
    pub fn from_arguments(arguments: &str) -> Self {
        let mut options = Self::default();
        let mut words = arguments.split_whitespace();
        while let Some(word) = words.next() {
            let (flag, joined) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word, None),
            };
            if ![
                "--id",
                "--user",
                "-n",
                "--name",
                "--cluster",
                "-c",
                "--conf",
                "--keyring",
                "-k",
            ]
            .contains(&flag)
            {
                continue;
            }
            let Some(value) = joined.or_else(|| words.next()) else {
                break;
            };
            match flag {
                "--id" | "--user" => options.user = format!("client.{value}"),
                "-n" | "--name" => value.clone_into(&mut options.user),
                "--cluster" => value.clone_into(&mut options.cluster),
                "-c" | "--conf" => options.conf = Some(value.into()),
                _ => options.keyring = Some(value.into()),
            }
        }
        options
    }
}

/// A connection to a cluster, shared by what was opened through it; the last owner ends it.
#[derive(Clone)]
pub struct Cluster(Arc<Connection>);

struct Connection {
    library: Arc<Library>,
    raw: Rados,
    fsid: String,
}

// SAFETY: a rados_t may be used by any thread, and by several at once (librados.h).
unsafe impl Send for Connection {}
// SAFETY: as above; nothing here is changed after the connection stands.
unsafe impl Sync for Connection {}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: created by rados_create2 and ended only here. Everything opened through it holds the connection, so it
        // is closed by now. A handle that never connected may be ended as well.
        unsafe { (self.library.functions.rados_shutdown)(self.raw) };
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({})", self.0.fsid)
    }
}

impl Cluster {
    /// Connects. Blocks for at most about [`ClusterOptions::timeout`].
    ///
    /// # Errors
    /// Where the configuration cannot be read, the key is refused, or no monitor answers in time.
    pub fn connect(library: &Arc<Library>, options: &ClusterOptions) -> Result<Self, RbdError> {
        let mut connection = create(library, options)?;
        connection.configure(options)?;
        let functions = &library.functions;
        // SAFETY: a configured handle that is not connected.
        let code = unsafe { (functions.rados_connect)(connection.raw) };
        check(code, || {
            format!("connect to the Ceph cluster as {}", options.user)
        })?;
        // A UUID as text and its end.
        let mut fsid = [0_u8; 64];
        // SAFETY: the buffer has the length that is named.
        let code = unsafe {
            (functions.rados_cluster_fsid)(connection.raw, fsid.as_mut_ptr().cast(), fsid.len())
        };
        check(code, || "ask for the cluster's id".to_owned())?;
        connection.fsid = text_in(&fsid);
        Ok(Self(Arc::new(connection)))
    }

    /// Id of the cluster.
    #[must_use]
    pub fn fsid(&self) -> &str {
        &self.0.fsid
    }

    /// The libraries that this connection uses.
    #[must_use]
    pub fn library(&self) -> &Arc<Library> {
        &self.0.library
    }

    /// Opens a pool by name, and one of its namespaces; the empty name is the default one.
    ///
    /// # Errors
    /// Where there is no such pool.
    pub fn pool(&self, name: &str, namespace: &str) -> Result<Pool, RbdError> {
        let c_name = c_string(name)?;
        self.open_pool(
            (namespace, None),
            || format!("open the pool {name}"),
            |raw| {
                // SAFETY: a connected handle, a C string that lives during the call, a place for the result.
                unsafe {
                    (self.0.library.functions.rados_ioctx_create)(self.0.raw, c_name.as_ptr(), raw)
                }
            },
        )
    }

    /// Opens a pool by id.
    ///
    /// # Errors
    /// Where there is no such pool.
    pub fn pool_by_id(&self, id: i64, namespace: &str) -> Result<Pool, RbdError> {
        self.pool_at(id, namespace, None)
    }

    /// The same for reading objects as they were in a snapshot.
    pub(super) fn pool_at(
        &self,
        id: i64,
        namespace: &str,
        snapshot: Option<u64>,
    ) -> Result<Pool, RbdError> {
        self.open_pool(
            (namespace, snapshot),
            || format!("open the pool with id {id}"),
            |raw| {
                // SAFETY: a connected handle and a place for the result.
                unsafe { (self.0.library.functions.rados_ioctx_create2)(self.0.raw, id, raw) }
            },
        )
    }

    fn open_pool(
        &self,
        (namespace, snapshot): (&str, Option<u64>),
        what: impl FnOnce() -> String,
        open: impl FnOnce(*mut IoContext) -> i32,
    ) -> Result<Pool, RbdError> {
        let c_namespace = c_string(namespace)?;
        let mut raw = ptr::null_mut();
        check(open(&raw mut raw), what)?;
        let functions = &self.0.library.functions;
        // SAFETY: the context was just opened; the name is copied.
        let id = unsafe {
            (functions.rados_ioctx_set_namespace)(raw, c_namespace.as_ptr());
            if let Some(snapshot) = snapshot {
                (functions.rados_ioctx_snap_set_read)(raw, snapshot);
            }
            (functions.rados_ioctx_get_id)(raw)
        };
        Ok(Pool(Arc::new(OpenPool {
            raw,
            id,
            namespace: namespace.to_owned(),
            cluster: self.clone(),
        })))
    }
}

/// A handle that is not configured and not connected.
fn create(library: &Arc<Library>, options: &ClusterOptions) -> Result<Connection, RbdError> {
    let (cluster, user) = (c_string(&options.cluster)?, c_string(&options.user)?);
    let mut raw = ptr::null_mut();
    // SAFETY: two C strings that live during the call, and a place for the result.
    let code = unsafe {
        (library.functions.rados_create2)(&raw mut raw, cluster.as_ptr(), user.as_ptr(), 0)
    };
    check(code, || format!("start a Ceph client as {}", options.user))?;
    Ok(Connection {
        library: Arc::clone(library),
        raw,
        fsid: String::new(),
    })
}

impl Connection {
    fn configure(&self, options: &ClusterOptions) -> Result<(), RbdError> {
        let functions = &self.library.functions;
        let conf = options.conf.as_ref().map(|conf| c_path(conf)).transpose()?;
        let conf_pointer: *const c_char = conf.as_ref().map_or(ptr::null(), |conf| conf.as_ptr());
        // SAFETY: an open handle; null means the default places, else a C string that lives during the call.
        let code = unsafe { (functions.rados_conf_read_file)(self.raw, conf_pointer) };
        check(code, || match &options.conf {
            Some(conf) => format!("read {}", conf.display()),
            None => "find a ceph.conf: CEPH_CONF may name one".to_owned(),
        })?;
        // SAFETY: an open handle; null means CEPH_ARGS.
        let code = unsafe { (functions.rados_conf_parse_env)(self.raw, ptr::null()) };
        check(code, || "read the options in CEPH_ARGS".to_owned())?;
        if let Some(keyring) = &options.keyring {
            self.set("keyring", &keyring.to_string_lossy())?;
        }
        let whole = options.timeout.as_secs();
        let rest = u64::from(options.timeout.subsec_nanos() > 0);
        let seconds = whole.saturating_add(rest).max(1).to_string();
        for option in [
            "rados_mon_op_timeout",
            "rados_osd_op_timeout",
            "client_mount_timeout",
        ] {
            self.set(option, &seconds)?;
        }
        // Every byte is read once, and a write that was told to be done must be.
        self.set("rbd_cache", "false")?;
        self.set("rbd_concurrent_management_ops", DIFF_DEPTH)
    }

    fn set(&self, option: &str, value: &str) -> Result<(), RbdError> {
        let (c_option, c_value) = (c_string(option)?, c_string(value)?);
        // SAFETY: an open handle and two C strings that live during the call.
        let code = unsafe {
            (self.library.functions.rados_conf_set)(self.raw, c_option.as_ptr(), c_value.as_ptr())
        };
        check(code, || format!("set the Ceph option {option} to {value}")).map(drop)
    }
}

fn c_path(path: &std::path::Path) -> Result<CString, RbdError> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| RbdError::Name {
        text: path.display().to_string(),
    })
}

/// A pool, or a namespace of one, shared by the images that were opened in it.
#[derive(Clone)]
pub struct Pool(Arc<OpenPool>);

struct OpenPool {
    raw: IoContext,
    id: i64,
    namespace: String,
    cluster: Cluster,
}

// SAFETY: several threads may use a rados_ioctx_t as long as none changes its settings (librados.h); they are set before it
// is shared.
unsafe impl Send for OpenPool {}
// SAFETY: as above.
unsafe impl Sync for OpenPool {}

impl Drop for OpenPool {
    fn drop(&mut self) {
        // SAFETY: opened by rados_ioctx_create and ended only here; the connection is held by this value.
        unsafe { (self.cluster.0.library.functions.rados_ioctx_destroy)(self.raw) };
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({}/{})", self.0.id, self.0.namespace)
    }
}

impl Pool {
    /// Id of the pool, never used again for another one.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.0.id
    }

    /// The namespace; empty for the default one.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    pub(super) fn raw(&self) -> IoContext {
        self.0.raw
    }

    pub(super) fn library(&self) -> &Arc<Library> {
        &self.0.cluster.0.library
    }
}
