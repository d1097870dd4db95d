/* What is rare: one message each, through the FIFO that `cpu.qemu.stream.Inbox` reads. */
#include "plugin.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct message { uint32_t size, type, pid, tid; uint64_t a, b, c, d, e; char text[]; };

const char *folder;
unsigned gone;

void die(const char *what) {
    dprintf(2, "archlbr: the QEMU plugin %s: %s\n", what, strerror(errno));
    _exit(70);
}

/* The FIFO is opened for each message: the program may close, or take, any descriptor that it does not know. */
void post(uint32_t type, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, const char *text) {
    char path[PATH_MAX];
    union { struct message m; char raw[PIPE_BUF]; } u = {{0, type, getpid(), syscall(SYS_gettid), a, b, c, d, e}};
    size_t length = strnlen(text, PIPE_BUF - sizeof u.m - 1), size = sizeof u.m + length + 1;
    if (gone) return;
    memcpy(u.m.text, text, length);
    u.m.text[length] = 0;
    u.m.size = size = (size + 7) & ~7ul;
    snprintf(path, sizeof path, "%s/events", folder);
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && (errno == ENXIO || errno == ENOENT)) { gone = 1; return; } /* the recorder has ended: run on without it */
    if (fd < 0) die("cannot reach the recorder");
    fcntl(fd, F_SETFL, 0);
    ssize_t done;
    do done = write(fd, u.raw, size); while (done < 0 && errno == EINTR);
    if (done < 0) gone = 1;
    close(fd);
}

void post_progress(unsigned cpu) {
    struct stream *s = streams[cpu];
    post(PROGRESS, cpu, (uint64_t)s->laps * s->circle + s->next, 0, 0, 0, "");
}
