/* Preload this into a process to kill it just before its n-th change of a file below a folder.

   KILL_FOLDER is the folder; KILL_BEFORE is n, or 0 to print the number of changes at the end. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_int changes;

static int below(int directory, const char *path) {
  const char *folder = getenv("KILL_FOLDER");
  char link[64], place[PATH_MAX];
  if (folder == NULL) return 0;
  if (path == NULL || path[0] != '/') { /* a descriptor, or relative to one */
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, place, sizeof place - 1);
    if (length < 0) return 0;
    place[length] = 0;
    path = place;
  }
  return strncmp(path, folder, strlen(folder)) == 0;
}

static void change(int directory, const char *path) {
  if (!below(directory, path)) return;
  int number = atomic_fetch_add(&changes, 1) + 1;
  const char *fatal = getenv("KILL_BEFORE");
  if (fatal != NULL && atoi(fatal) == number) kill(getpid(), SIGKILL);
}

__attribute__((destructor)) static void report(void) {
  const char *fatal = getenv("KILL_BEFORE");
  if (changes > 0 && fatal != NULL && atoi(fatal) == 0) fprintf(stderr, "changes: %d\n", changes);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRITES (O_CREAT | O_TRUNC)

#define OPEN(name)                                   \
  int name(const char *path, int flags, ...) {       \
    va_list arguments;                               \
    va_start(arguments, flags);                      \
    mode_t mode = va_arg(arguments, mode_t);         \
    va_end(arguments);                               \
    if (flags & WRITES) change(AT_FDCWD, path);      \
    return REAL(name)(path, flags, mode);            \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                          \
  int name(int directory, const char *path, int flags, ...) { \
    va_list arguments;                                        \
    va_start(arguments, flags);                               \
    mode_t mode = va_arg(arguments, mode_t);                  \
    va_end(arguments);                                        \
    if (flags & WRITES) change(directory, path);              \
    return REAL(name)(directory, path, flags, mode);          \
  }
OPENAT(openat)
OPENAT(openat64)

#define WRAP(result, name, parameters, directory, path, arguments) \
  result name parameters {                                         \
    change(directory, path);                                       \
    return REAL(name) arguments;                                   \
  }
WRAP(ssize_t, write, (int fd, const void *data, size_t size), fd, NULL, (fd, data, size))
WRAP(ssize_t, writev, (int fd, const struct iovec *parts, int count), fd, NULL, (fd, parts, count))
WRAP(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), fd, NULL,
     (fd, data, size, at))
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, NULL,
     (fd, data, size, at))
WRAP(int, rename, (const char *from, const char *to), AT_FDCWD, from, (from, to))
WRAP(int, renameat, (int d, const char *from, int e, const char *to), d, from, (d, from, e, to))
WRAP(int, mkdir, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
WRAP(int, mkdirat, (int d, const char *path, mode_t mode), d, path, (d, path, mode))
WRAP(int, unlink, (const char *path), AT_FDCWD, path, (path))
WRAP(int, unlinkat, (int d, const char *path, int flags), d, path, (d, path, flags))
WRAP(int, rmdir, (const char *path), AT_FDCWD, path, (path))
