/* Kills a process at one of its calls that change the disk: preloaded into an agent by a test.
 *
 *   FAULT_DIRECTORY  only calls on files below it are counted
 *   FAULT_AT         the number of the call before which the process is killed, from 1; 0: never
 *   FAULT_HALF       if set, half of a write is written first
 *   FAULT_LOG        a file that gets a line for each counted call
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int calls;

/* Counts a call on `path`. If it is a write to be cut off, `half` bytes of `bytes` are written to `fd` first. */
static void counted(const char *call, const char *path, int fd, const void *bytes, size_t half) {
    const char *directory = getenv("FAULT_DIRECTORY"), *at = getenv("FAULT_AT"), *log = getenv("FAULT_LOG");
    if (directory == NULL || at == NULL || strncmp(path, directory, strlen(directory)) != 0)
        return;
    int number = atomic_fetch_add(&calls, 1) + 1;
    if (log != NULL) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%d %s %s\n", number, call, path + strlen(directory));
        int to = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        syscall(SYS_write, to, line, length);
        syscall(SYS_close, to);
    }
    if (number != atoi(at))
        return;
    if (half > 0 && getenv("FAULT_HALF") != NULL)
        syscall(SYS_write, fd, bytes, half);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void counted_on(const char *call, int fd, const void *bytes, size_t half) {
    char name[32], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return;
    path[length] = 0;
    counted(call, path, fd, bytes, half);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    counted_on("write", fd, bytes, length / 2);
    return syscall(SYS_write, fd, bytes, length);
}

int fsync(int fd) {
    counted_on("fsync", fd, NULL, 0);
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    counted_on("fdatasync", fd, NULL, 0);
    return (int)syscall(SYS_fdatasync, fd);
}

int ftruncate64(int fd, off64_t length) {
    counted_on("ftruncate", fd, NULL, 0);
    return (int)syscall(SYS_ftruncate, fd, length);
}

int rename(const char *from, const char *to) {
    counted("rename", from, -1, NULL, 0);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path) {
    counted("unlink", path, -1, NULL, 0);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}
