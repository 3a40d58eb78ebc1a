/* Stands between a daemon and its disk and clock (LD_PRELOAD), as a test directs it through a mapped file.
 *
 * Only what happens below one folder counts, and not SQLite's shared memory. Each change there (a write, a
 * sync, a new, renamed or removed name) can be written to a log together with its data, can fail with an errno,
 * or can be the moment at which the process is killed, a write half done. One lock is held over a change and
 * its record, so that the log has the order in which things happened.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, READ = 4, TRUNCATE = 8, OPEN = 16, NAME = 32 };
/* What some file systems cannot do. */
enum { FOLDER_SYNC = 64, MODE = 128, LINK = 256, LOCK = 512, MAP = 1024, BIND = 2048 };

/* The same in shim.py. */
struct control {
    volatile int64_t fail_calls, fail_errno, fail_after, kill_after, changes, realtime_shift, monotonic_shift;
};

struct record {
    char kind; /* w t s c m r u l: write truncate sync create mkdir rename unlink link */
    char pad[3];
    uint32_t path, other, data;
    int64_t offset;
};

static struct control idle, *control = &idle;
static const char *folder;
static size_t folder_length;
static int log_descriptor = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })

static void drop_capabilities(void) { /* so that root is bound by modes, too */
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    uint32_t dropped = 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH;
    if (syscall(SYS_capget, &header, data) == 0) {
        data[0].effective &= ~dropped;
        data[0].permitted &= ~dropped;
        data[0].inheritable &= ~dropped;
        syscall(SYS_capset, &header, data);
    }
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("ORBIT_SHIM_CONTROL"), *log = getenv("ORBIT_SHIM_LOG");
    folder = getenv("ORBIT_SHIM_FOLDER");
    folder_length = folder ? strlen(folder) : 0;
    if (path) {
        int descriptor = REAL(open)(path, O_RDWR | O_CLOEXEC);
        void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        if (mapped != MAP_FAILED) control = mapped;
        close(descriptor);
    }
    if (log) log_descriptor = REAL(open)(log, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (getenv("ORBIT_SHIM_MODES_BIND")) drop_capabilities();
}

static int ends(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static int watched(const char *path) {
    return folder && strncmp(path, folder, folder_length) == 0 && !ends(path, "-shm") && !ends(path, " (deleted)");
}

static const char *path_of(int descriptor, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return watched(path) ? path : NULL;
}

static void append(const void *data, size_t length) {
    while (length > 0) {
        ssize_t done = syscall(SYS_write, log_descriptor, data, length);
        if (done <= 0) _exit(99);
        data = (const char *)data + done, length -= done;
    }
}

static void note(char kind, const char *path, const char *other, const void *data, size_t length, off_t offset) {
    if (log_descriptor < 0) return;
    struct record record = {kind, {0}, strlen(path), other ? strlen(other) : 0, length, offset};
    append(&record, sizeof record);
    append(path, record.path);
    append(other, record.other);
    append(data, length);
}

static int fails(int call) {
    if (!(control->fail_calls & call)) return 0;
    if (control->fail_after > 0) return control->fail_after--, 0;
    errno = control->fail_errno;
    return 1;
}

/* Tell whether the process is to die in this change. */
static int is_last(void) {
    control->changes++;
    return control->kill_after > 0 && --control->kill_after == 0;
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

#define CHANGE(kind, call, path, other, data, length, offset, work, half)      \
    ({                                                                          \
        pthread_mutex_lock(&lock);                                              \
        ssize_t result = -1;                                                    \
        if (is_last()) { half; die(); }                                         \
        if (!fails(call)) {                                                     \
            result = (work);                                                    \
            int kept = errno;                                                   \
            if (result >= 0) note(kind, path, other, data, length, offset);     \
            errno = kept;                                                       \
        }                                                                       \
        int told = errno;                                                       \
        pthread_mutex_unlock(&lock);                                            \
        errno = told;                                                           \
        result;                                                                 \
    })

static ssize_t put(int descriptor, const void *data, size_t length, off_t offset) {
    char path[4096];
    if (!path_of(descriptor, path, sizeof path)) return syscall(SYS_pwrite64, descriptor, data, length, offset);
    return CHANGE('w', WRITE, path, NULL, data, (size_t)result, offset,
                  syscall(SYS_pwrite64, descriptor, data, length, offset),
                  syscall(SYS_pwrite64, descriptor, data, length / 2, offset));
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) { return put(descriptor, data, length, offset); }
ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) { return put(descriptor, data, length, offset); }

ssize_t write(int descriptor, const void *data, size_t length) {
    char path[4096];
    if (!folder || !path_of(descriptor, path, sizeof path)) return REAL(write)(descriptor, data, length);
    struct stat found;
    off_t offset = fcntl(descriptor, F_GETFL) & O_APPEND && fstat(descriptor, &found) == 0 ? found.st_size : lseek(descriptor, 0, SEEK_CUR);
    return CHANGE('w', WRITE, path, NULL, data, (size_t)result, offset, REAL(write)(descriptor, data, length), (void)0);
}

static ssize_t get(int descriptor, void *data, size_t length, off_t offset) {
    char path[4096];
    if (control->fail_calls & READ && path_of(descriptor, path, sizeof path) && fails(READ)) return -1;
    return syscall(SYS_pread64, descriptor, data, length, offset);
}

ssize_t pread(int descriptor, void *data, size_t length, off_t offset) { return get(descriptor, data, length, offset); }
ssize_t pread64(int descriptor, void *data, size_t length, off64_t offset) { return get(descriptor, data, length, offset); }

static int cut(int descriptor, off_t length) {
    char path[4096];
    if (!path_of(descriptor, path, sizeof path)) return syscall(SYS_ftruncate, descriptor, length);
    return CHANGE('t', TRUNCATE, path, NULL, NULL, 0, length, syscall(SYS_ftruncate, descriptor, length), (void)0);
}

int ftruncate(int descriptor, off_t length) { return cut(descriptor, length); }
int ftruncate64(int descriptor, off64_t length) { return cut(descriptor, length); }

static int bring_to_disk(int descriptor, long number) {
    char path[4096];
    struct stat found;
    if (!path_of(descriptor, path, sizeof path)) return syscall(number, descriptor);
    if (control->fail_calls & FOLDER_SYNC && fstat(descriptor, &found) == 0 && S_ISDIR(found.st_mode) && fails(FOLDER_SYNC)) return -1;
    return CHANGE('s', SYNC, path, NULL, NULL, 0, 0, syscall(number, descriptor), (void)0);
}

int fsync(int descriptor) { return bring_to_disk(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return bring_to_disk(descriptor, SYS_fdatasync); }

static int open_at(int at, const char *path, int flags, mode_t mode) {
    if (at != AT_FDCWD || !watched(path)) return syscall(SYS_openat, at, path, flags, mode);
    if (control->fail_calls & OPEN && fails(OPEN)) return -1;
    if (!(flags & O_CREAT) || access(path, F_OK) == 0) {
        int descriptor = syscall(SYS_openat, at, path, flags, mode);
        if (descriptor >= 0 && flags & O_TRUNC) {
            pthread_mutex_lock(&lock);
            note('t', path, NULL, NULL, 0, 0);
            pthread_mutex_unlock(&lock);
        }
        return descriptor;
    }
    return CHANGE('c', NAME, path, NULL, NULL, 0, 0, syscall(SYS_openat, at, path, flags, mode), (void)0);
}

#define MODE(flags) ({ va_list list; va_start(list, flags); mode_t found = (flags) & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; va_end(list); found; })

int open(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags, MODE(flags)); }
int openat(int at, const char *path, int flags, ...) { return open_at(at, path, flags, MODE(flags)); }
int openat64(int at, const char *path, int flags, ...) { return open_at(at, path, flags, MODE(flags)); }

int mkdir(const char *path, mode_t mode) {
    if (!watched(path)) return REAL(mkdir)(path, mode);
    return CHANGE('m', NAME, path, NULL, NULL, 0, 0, REAL(mkdir)(path, mode), (void)0);
}

int unlink(const char *path) {
    if (!watched(path)) return REAL(unlink)(path);
    return CHANGE('u', NAME, path, NULL, NULL, 0, 0, REAL(unlink)(path), (void)0);
}

int rename(const char *path, const char *other) {
    if (!watched(path)) return REAL(rename)(path, other);
    return CHANGE('r', NAME, path, other, NULL, 0, 0, REAL(rename)(path, other), (void)0);
}

int link(const char *path, const char *other) {
    if (!watched(path)) return REAL(link)(path, other);
    if (control->fail_calls & LINK && fails(LINK)) return -1;
    return CHANGE('l', NAME, path, other, NULL, 0, 0, REAL(link)(path, other), (void)0);
}

int linkat(int at, const char *path, int other_at, const char *other, int flags) {
    if (!watched(path)) return REAL(linkat)(at, path, other_at, other, flags);
    if (control->fail_calls & LINK && fails(LINK)) return -1;
    return CHANGE('l', NAME, path, other, NULL, 0, 0, REAL(linkat)(at, path, other_at, other, flags), (void)0);
}

int symlink(const char *target, const char *path) {
    if (control->fail_calls & LINK && watched(path) && fails(LINK)) return -1;
    return REAL(symlink)(target, path);
}

int chmod(const char *path, mode_t mode) {
    if (control->fail_calls & MODE && watched(path) && fails(MODE)) return -1;
    return REAL(chmod)(path, mode);
}

int fchmod(int descriptor, mode_t mode) {
    char path[4096];
    if (control->fail_calls & MODE && path_of(descriptor, path, sizeof path) && fails(MODE)) return -1;
    return REAL(fchmod)(descriptor, mode);
}

int fchmodat(int at, const char *path, mode_t mode, int flags) {
    if (control->fail_calls & MODE && watched(path) && fails(MODE)) return -1;
    return REAL(fchmodat)(at, path, mode, flags);
}

int flock(int descriptor, int operation) {
    char path[4096];
    if (control->fail_calls & LOCK && path_of(descriptor, path, sizeof path) && fails(LOCK)) return -1;
    return REAL(flock)(descriptor, operation);
}

/* SQLite's shared memory is not watched, so it is found by its name. */
static void *map(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    char link[64], path[4096];
    if (control->fail_calls & MAP && flags & MAP_SHARED && descriptor >= 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t size = readlink(link, path, sizeof path - 1);
        path[size < 0 ? 0 : size] = 0;
        if (ends(path, "-shm") && fails(MAP)) return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, address, length, protection, flags, descriptor, offset);
}

void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    return map(address, length, protection, flags, descriptor, offset);
}
void *mmap64(void *address, size_t length, int protection, int flags, int descriptor, off64_t offset) {
    return map(address, length, protection, flags, descriptor, offset);
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length) {
    const struct sockaddr_un *name = (const struct sockaddr_un *)address;
    if (control->fail_calls & BIND && address->sa_family == AF_UNIX && watched(name->sun_path) && fails(BIND)) return -1;
    return REAL(bind)(descriptor, address, length);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, which, now);
    int64_t shift = which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE ? control->realtime_shift
                  : which == CLOCK_MONOTONIC || which == CLOCK_MONOTONIC_COARSE ? control->monotonic_shift : 0;
    now->tv_sec += shift;
    return result;
}
