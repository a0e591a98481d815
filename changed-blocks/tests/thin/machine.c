/*
 * Preloaded into User Mode Linux.
 *
 * Before 6.13 its room for a process's vector registers is smaller than what machines with AMX save: such a kernel refuses to restore
 * less than all of them. Here the rest is filled in with what the process has.
 *
 * Nothing in the machine outlives it, so its disk is never synced.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

long ptrace(enum __ptrace_request request, ...)
{
	static char whole[1 << 16];
	va_list list;
	va_start(list, request);
	pid_t pid = va_arg(list, pid_t);
	void *address = va_arg(list, void *);
	void *data = va_arg(list, void *);
	va_end(list);

	if (request == PTRACE_SETREGSET && (unsigned long)address == NT_X86_XSTATE) {
		struct iovec *part = data;
		struct iovec all = { whole, sizeof whole };
		if (syscall(SYS_ptrace, (long)PTRACE_GETREGSET, (long)pid, address, &all) < 0)
			return -1;
		memcpy(whole, part->iov_base, part->iov_len < all.iov_len ? part->iov_len : all.iov_len);
		return syscall(SYS_ptrace, (long)request, (long)pid, address, &all);
	}
	/* The kernel stores what it peeked at; the library returns it (man ptrace). */
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		long peeked;
		if (syscall(SYS_ptrace, (long)request, (long)pid, address, &peeked) < 0)
			return -1;
		errno = 0;
		return peeked;
	}
	return syscall(SYS_ptrace, (long)request, (long)pid, address, data);
}

int fsync(int descriptor)
{
	(void)descriptor;
	return 0;
}

int fdatasync(int descriptor)
{
	(void)descriptor;
	return 0;
}
