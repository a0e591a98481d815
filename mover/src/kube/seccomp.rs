//! What the agent's container may ask of the kernel.
//!
//! Owns: the list. Must not: know where a kubelet keeps profiles (`snaphaul seccomp --install` is told).
//!
//! The profiles of container runtimes forbid io_uring (containerd since 2.0), which the agent reads and writes fastest with. This one
//! allows it and little else: what the program, its threads and its TLS connections use, of the calls that the runtimes' own profiles
//! allow as well. Without it everything works on threads. Names that an architecture does not have are ignored.

use serde_json::{Value, json};

/// Name of the profile's file, as `localhostProfile` of the agent's container names it.
pub const FILE_NAME: &str = "snaphaul-agent.json";

/// Submission and completion queues shared with the kernel.
const IO_URING: &str = "io_uring_enter io_uring_register io_uring_setup";

const FILES: &str = "\
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat \
    faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl \
    fdatasync flock fstat fstatfs fsync ftruncate getcwd getdents getdents64 ioctl link linkat \
    lseek lstat mkdir mkdirat newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 \
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 \
    rmdir sendfile splice stat statfs statx symlink symlinkat sync_file_range syncfs tee truncate \
    umask unlink unlinkat utimensat write writev";

const MEMORY: &str = "\
    brk madvise membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap msync \
    munlock munlockall munmap";

const PROCESSES: &str = "\
    arch_prctl capget execve execveat exit exit_group futex futex_waitv get_robust_list getcpu \
    getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid \
    getresuid getrlimit getrusage getsid gettid getuid kill pidfd_open pidfd_send_signal prctl \
    prlimit64 restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_setaffinity sched_yield set_robust_list set_thread_area set_tid_address setitimer \
    setpriority setrlimit setsid sigaltstack sysinfo tgkill tkill uname vfork wait4 waitid";

const CLOCKS_AND_EVENTS: &str = "\
    alarm clock_getres clock_gettime clock_nanosleep epoll_create epoll_create1 epoll_ctl \
    epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 getitimer getrandom gettimeofday \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch nanosleep pause poll ppoll \
    pselect6 select signalfd4 time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_settime timerfd_create timerfd_gettime timerfd_settime";

const SOCKETS: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg \
    recvmsg sendmmsg sendmsg sendto setsockopt shutdown socket socketpair";

/// The flags of `clone` that make namespaces (clone(2)): a thread or process needs none.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;
/// `clone3` hides its flags in memory, where no filter sees them; a C library falls back to `clone` at ENOSYS (errno(3)).
const ENOSYS: u32 = 38;
/// What everything else gets: EPERM (errno(3)).
const EPERM: u32 = 1;

/// The profile, in the form of the runtime specification of the Open Container Initiative.
#[must_use]
pub fn profile() -> Value {
    let groups = [
        FILES,
        MEMORY,
        PROCESSES,
        CLOCKS_AND_EVENTS,
        SOCKETS,
        IO_URING,
    ];
    let mut names: Vec<&str> = groups
        .iter()
        .flat_map(|group| group.split_whitespace())
        .collect();
    names.sort_unstable();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "syscalls": [
            { "names": names, "action": "SCMP_ACT_ALLOW" },
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
            },
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS },
        ],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn allows_the_rings_and_nothing_that_leaves_the_container() {
        let profile = profile();
        let names: Vec<&str> = profile["syscalls"][0]["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        let set: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(set.len(), names.len(), "a name is listed twice");
        for name in IO_URING.split_whitespace() {
            assert!(set.contains(name), "{name}");
        }
        for name in [
            "bpf",
            "clone",
            "clone3",
            "init_module",
            "kexec_load",
            "keyctl",
            "mknod",
            "mount",
            "pivot_root",
            "process_vm_readv",
            "ptrace",
            "reboot",
            "setns",
            "setuid",
            "unshare",
            "userfaultfd",
        ] {
            assert!(!set.contains(name), "{name}");
        }
    }
}
