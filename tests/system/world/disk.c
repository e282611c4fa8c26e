/* Lab only (LD_PRELOAD): a disk that fails when it is told to, and loses at a power cut what was not synced.

   Watched are files whose path begins with a prefix. Each write, sync, truncation and creation of a watched file is one
   operation; `disk_fail` makes some of them fail with an errno. Writes since a file's last sync are kept, so that
   `disk_power_cut` can make any subset of them, some of them torn at a sector, never have happened. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 512, PATHS = 256 };

struct entry {
    int path;
    off_t at, old_size;
    size_t length, old_length;
    char *new, *old;
};

static char prefix[PATH_MAX];
static char paths[PATHS][PATH_MAX];
static int path_count;
static struct entry *entries;
static size_t entry_count, entry_room;
static long operations, fail_after = -1, fail_count, failed;
static int fail_errno;

#define REAL(name) static __typeof__(&name) real_##name; if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name)

static void forget(void) {
    for (size_t i = 0; i < entry_count; i++) { free(entries[i].new); free(entries[i].old); }
    entry_count = 0;
}

void disk_watch(const char *path) { snprintf(prefix, sizeof prefix, "%s", path); forget(); path_count = 0; }
void disk_fail(long after, long count, int error) { fail_after = after; fail_count = count; fail_errno = error; }
long disk_operations(void) { return operations; }
long disk_failed(void) { return failed; }

static int watched(int fd, char *path) {
    char link[64];
    if (!prefix[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return !strncmp(path, prefix, strlen(prefix)) && !(n > 4 && !strcmp(path + n - 4, "-shm"));
}

static int fails(void) {
    operations++;
    if (fail_after > 0) { fail_after--; return 0; }
    if (fail_after == 0 && fail_count > 0) { fail_count--; failed++; errno = fail_errno; return 1; }
    return 0;
}

static void note(int fd, const char *path, const char *octets, size_t length, off_t at) {
    REAL(pread);
    struct stat now;
    int known = 0;
    while (known < path_count && strcmp(paths[known], path)) known++;
    if (known == path_count) {
        if (path_count == PATHS) return;
        strcpy(paths[path_count++], path);
    }
    if (entry_count == entry_room) {
        entry_room = entry_room ? 2 * entry_room : 1024;
        entries = realloc(entries, entry_room * sizeof *entries);
    }
    struct entry *e = &entries[entry_count++];
    e->path = known;
    e->at = at;
    e->length = length;
    e->new = malloc(length + 1);
    memcpy(e->new, octets, length);
    e->old = malloc(length + 1);
    ssize_t n = real_pread(fd, e->old, length, at);
    e->old_length = n > 0 ? (size_t)n : 0;
    e->old_size = fstat(fd, &now) ? 0 : now.st_size;
}

static void synced(const char *path) {
    size_t kept = 0;
    for (size_t i = 0; i < entry_count; i++) {
        if (!strcmp(paths[entries[i].path], path)) { free(entries[i].new); free(entries[i].old); }
        else entries[kept++] = entries[i];
    }
    entry_count = kept;
}

static ssize_t writing(int fd, const void *octets, size_t length, off_t at) {
    REAL(pwrite64);
    char path[PATH_MAX];
    if (watched(fd, path)) {
        if (fails()) return -1;
        note(fd, path, octets, length, at);
    }
    return real_pwrite64(fd, octets, length, at);
}

ssize_t pwrite64(int fd, const void *octets, size_t length, off64_t at) { return writing(fd, octets, length, at); }
ssize_t pwrite(int fd, const void *octets, size_t length, off_t at) { return writing(fd, octets, length, at); }

ssize_t write(int fd, const void *octets, size_t length) {
    REAL(write);
    char path[PATH_MAX];
    if (watched(fd, path)) {
        if (fails()) return -1;
        note(fd, path, octets, length, lseek(fd, 0, SEEK_CUR));
    }
    return real_write(fd, octets, length);
}

static int syncing(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    if (!watched(fd, path)) return real(fd);
    if (fails()) return -1;
    synced(path);
    return 0; /* the kernel's own sync would only cost time: a power cut is played, not pulled */
}

int fsync(int fd) { REAL(fsync); return syncing(fd, real_fsync); }
int fdatasync(int fd) { REAL(fdatasync); return syncing(fd, real_fdatasync); }

static int truncating(int fd, off64_t size) {
    REAL(ftruncate64);
    char path[PATH_MAX];
    if (watched(fd, path) && fails()) return -1;
    return real_ftruncate64(fd, size);
}

int ftruncate(int fd, off_t size) { return truncating(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncating(fd, size); }

int posix_fallocate(int fd, off_t at, off_t length) {
    REAL(posix_fallocate);
    char path[PATH_MAX];
    if (watched(fd, path) && fails()) return errno;
    return real_posix_fallocate(fd, at, length);
}
int posix_fallocate64(int fd, off64_t at, off64_t length) { return posix_fallocate(fd, at, length); }

static unsigned long long state;
static unsigned draw(void) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(state >> 33);
}

/* Make the copies under `to` what a power cut would have left of the files under the prefix. */
void disk_power_cut(unsigned seed, const char *to) {
    char path[2 * PATH_MAX];
    REAL(pwrite64);
    REAL(ftruncate64);
    state = seed;
    for (int p = 0; p < path_count; p++) {
        snprintf(path, sizeof path, "%s%s", to, paths[p] + strlen(prefix));
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0) continue;
        for (size_t i = entry_count; i-- > 0;) {
            struct entry *e = &entries[i];
            if (e->path != p) continue;
            real_pwrite64(fd, e->old, e->old_length, e->at);
            real_ftruncate64(fd, e->old_size);
        }
        for (size_t i = 0; i < entry_count; i++) {
            struct entry *e = &entries[i];
            if (e->path != p) continue;
            unsigned fate = draw() % 4;
            size_t length = fate < 2 ? e->length : fate == 2 ? 0 : draw() % (e->length / SECTOR + 1) * SECTOR;
            real_pwrite64(fd, e->new, length, e->at);
        }
        close(fd);
    }
    forget();
}
