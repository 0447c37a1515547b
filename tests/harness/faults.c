/* A disk that fails, below the real server: loaded with LD_PRELOAD, it stands between the program
 * and the C library's calls on the files of one folder.
 *
 * FAULTS_FOLDER names the folder, FAULTS_CONTROL a file of one `struct control`, which the test
 * maps and changes while the server runs. Files below FOLDER/log are of the log, all others of the
 * store. A rule says which calls fail, after how many good ones, how often, and how: an error
 * before anything happened, an error after half of the bytes were written, or only a delay.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE, SYNC, OPEN, TRUNCATE, RENAME, READ, DIRECT, ALLOCATE, KINDS };
enum { NOWHERE, LOG, STORE, PLACES };
enum { RULES = 8, FILES = 65536 };

struct rule {
    int32_t kinds;    /* bit per kind; 0: unused */
    int32_t places;   /* bit per place */
    int32_t skip;     /* good calls before the first bad one */
    int32_t times;    /* bad calls left; -1: without end */
    int32_t error;    /* errno; 0: none */
    int32_t half;     /* write half of the bytes before the error */
    int32_t delay_us; /* before the call */
    int32_t growing;  /* 1: only writes that make the file longer, -1: only others, 0: all */
    int32_t fired;
};

struct control {
    struct rule rules[RULES];
    int32_t seen[KINDS][PLACES];
};

static struct control *control;
static char folder[PATH_MAX];
static uint8_t place_of[FILES];

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("FAULTS_FOLDER"), *file = getenv("FAULTS_CONTROL");
    if (!name || !file || strlen(name) >= sizeof folder) return;
    strcpy(folder, name);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *map = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) control = map;
    close(fd);
}

static int place(const char *path) {
    size_t length = strlen(folder);
    char here[PATH_MAX], whole[2 * PATH_MAX];
    if (*path != '/' && getcwd(here, sizeof here)) {
        snprintf(whole, sizeof whole, "%s/%s", here, path);
        path = whole;
    }
    if (!length || strncmp(path, folder, length)) return NOWHERE;
    return strncmp(path + length, "/log", 4) ? STORE : LOG;
}

/* The error that this call has to give, or 0. `half` says whether half is written before; `grows`
 * whether the file gets longer. */
static int fault(int kind, int where, int grows, int *half) {
    if (half) *half = 0;
    if (!control || where == NOWHERE) return 0;
    __atomic_add_fetch(&control->seen[kind][where], 1, __ATOMIC_RELAXED);
    for (int i = 0; i < RULES; i++) {
        struct rule *rule = &control->rules[i];
        int32_t kinds = __atomic_load_n(&rule->kinds, __ATOMIC_ACQUIRE);
        if (!(kinds >> kind & 1) || !(rule->places >> where & 1)) continue;
        if (rule->growing && (rule->growing > 0) != !!grows) continue;
        if (__atomic_fetch_sub(&rule->skip, 1, __ATOMIC_RELAXED) > 0) continue;
        if (rule->times == 0) continue;
        if (rule->times > 0) __atomic_sub_fetch(&rule->times, 1, __ATOMIC_RELAXED);
        __atomic_add_fetch(&rule->fired, 1, __ATOMIC_RELAXED);
        if (rule->delay_us) {
            struct timespec pause = {rule->delay_us / 1000000, rule->delay_us % 1000000 * 1000L};
            nanosleep(&pause, 0);
        }
        if (half) *half = rule->half;
        if (rule->error) return rule->error;
    }
    return 0;
}

static int where(int fd) {
    return fd >= 0 && fd < FILES ? place_of[fd] : NOWHERE;
}

static int grows(int fd, off64_t to) {
    struct stat64 found;
    return where(fd) != NOWHERE && !fstat64(fd, &found) && to > found.st_size;
}

/* Looked up once: `write` is a call of sockets too, whose speed may be measured. */
#define REAL(name)                                                            \
    ({                                                                        \
        static void *found;                                                   \
        if (!__atomic_load_n(&found, __ATOMIC_RELAXED))                       \
            __atomic_store_n(&found, real(#name), __ATOMIC_RELAXED);          \
        (__typeof__(&name))__atomic_load_n(&found, __ATOMIC_RELAXED);         \
    })

static void *real(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

#define FAIL_IF(kind, place)                      \
    do {                                          \
        int error = fault(kind, place, 0, 0);     \
        if (error) return errno = error, -1;      \
    } while (0)

static int remember(int fd, int at) {
    if (fd >= 0 && fd < FILES) place_of[fd] = at;
    return fd;
}

#define OPEN_CALL(name)                                           \
    int name(const char *path, int flags, ...) {                  \
        va_list more;                                             \
        va_start(more, flags);                                    \
        mode_t mode = va_arg(more, mode_t);                       \
        va_end(more);                                             \
        int at = place(path);                                     \
        FAIL_IF(flags & O_DIRECT ? DIRECT : OPEN, at);            \
        return remember(REAL(name)(path, flags, mode), at);       \
    }
OPEN_CALL(open)
OPEN_CALL(open64)

int close(int fd) {
    remember(fd, NOWHERE);
    return REAL(close)(fd);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    int half, error = fault(WRITE, where(fd), 1, &half);
    if (error && half) (void)!REAL(write)(fd, bytes, length / 2);
    if (error) return errno = error, -1;
    return REAL(write)(fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    int error = fault(WRITE, where(fd), 1, 0);
    if (error) return errno = error, -1;
    return REAL(writev)(fd, parts, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    int half, error = fault(WRITE, where(fd), grows(fd, at + length), &half);
    /* Half, in whole blocks: direct I/O takes nothing else. */
    if (error && half) (void)!REAL(pwrite64)(fd, bytes, length / 2 / 4096 * 4096, at);
    if (error) return errno = error, -1;
    return REAL(pwrite64)(fd, bytes, length, at);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t at) {
    FAIL_IF(READ, where(fd));
    return REAL(pread64)(fd, bytes, length, at);
}

int fsync(int fd) {
    FAIL_IF(SYNC, where(fd));
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    FAIL_IF(SYNC, where(fd));
    return REAL(fdatasync)(fd);
}

int ftruncate64(int fd, off64_t length) {
    FAIL_IF(TRUNCATE, where(fd));
    return REAL(ftruncate64)(fd, length);
}

int fallocate64(int fd, int mode, off64_t at, off64_t length) {
    FAIL_IF(ALLOCATE, where(fd));
    return REAL(fallocate64)(fd, mode, at, length);
}

int rename(const char *from, const char *to) {
    FAIL_IF(RENAME, place(from));
    return REAL(rename)(from, to);
}
