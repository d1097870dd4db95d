/* Streams: the words that each thread writes as its blocks start, and the events between them. */
#include "plugin.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct ring *ring;
struct stream *streams[THREADS];
struct begun begun[BLOCKS];
uint8_t *lengths[BLOCKS];
#define HANDLERS 512u
static uint64_t handlers[HANDLERS];
static unsigned handlers_used;
static struct { uint32_t open, reached; } careful[THREADS];

uint64_t map_ring(void) {
    char path[PATH_MAX];
    for (uint64_t generation = 0;; generation++) {
        snprintf(path, sizeof path, "%s/ring.%d.%lu", folder, getpid(), generation);
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST) continue;
        if (fd < 0 && errno == ENOENT) gone = 1; /* the recorder has ended and taken its folder along */
        if (gone) ring = mmap(NULL, sizeof *ring, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        else if (fd < 0 || ftruncate(fd, sizeof *ring)) die("cannot make its ring");
        else ring = mmap(NULL, sizeof *ring, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (ring == MAP_FAILED) die("cannot map its ring");
        madvise(ring, sizeof *ring, MADV_RANDOM); /* a sparse file: to read ahead in its holes takes 0.2 s a process on ext4 */
        if (fd >= 0) close(fd);
        for (unsigned cpu = 0; cpu < THREADS; cpu++) {
            streams[cpu] = cpu ? &ring->stream[cpu] : &ring->first;
            streams[cpu]->circle = (cpu ? CHUNKS : FIRST_CHUNKS) * CHUNK;
        }
        ring->begun = begun;
        return generation;
    }
}

void end_chunk(struct stream *s, unsigned cpu) {
    if (s->next == s->circle) s->laps++, s->next = 0;
    uint32_t chunks = s->circle / CHUNK, total = s->laps * chunks + s->next / CHUNK, consumed;
    post_progress(cpu);
    while (!gone && total - (consumed = __atomic_load_n(&s->consumed, __ATOMIC_ACQUIRE)) >= chunks) {
        struct timespec second = {1, 0};
        if (syscall(SYS_futex, &s->consumed, FUTEX_WAIT, consumed, &second, 0, 0) < 0 && errno == ETIMEDOUT)
            post(NOTHING, 0, 0, 0, 0, 0, ""); /* finds out whether the recorder is still there */
    }
}

/* An event never lies across two chunks, so that its reader has all of it. */
void put_event(unsigned cpu, unsigned count, const uint32_t *words) {
    if (streams[cpu]->next % CHUNK + count > CHUNK)
        do put(cpu, 0); while (streams[cpu]->next % CHUNK);
    for (unsigned i = 0; i < count; i++) put(cpu, words[i]);
}

static uint32_t last_word(unsigned cpu) {
    struct stream *s = streams[cpu];
    return s->words[(s->next ? s->next : s->circle) - 1];
}

static uint32_t count_to(uint32_t id, uint64_t address) {
    uint64_t at = ring->block[id].start;
    uint32_t n = 0;
    while (n < ring->block[id].count && at < address) at += lengths[id][n++];
    return n;
}

/* --- signals --------------------------------------------------------------------------------------------------------------- */

/* Say that a signal's handler begins, and return 1, where its frame lies there: the return address, then the context (RDX), then
 * the siginfo (RSI); the signal in RDI. */
int signalled(unsigned cpu, const struct begun *b, const struct registers *r) {
    uint64_t rsp = r->general[4], context = r->general[2], info = r->general[6];
    if (context != rsp + 8 || info <= context || info - context > 1024) return 0;
    int32_t signo = *(int32_t *)info, code = *(int32_t *)(info + 8);
    if (signo != (int32_t)r->general[7]) return 0;
    uint64_t rip = *(uint64_t *)(context + 40 + 16 * 8);
    int fault = code > 0 && (signo == SIGSEGV || signo == SIGBUS || signo == SIGILL || signo == SIGFPE || signo == SIGTRAP);
    uint32_t open = last_word(cpu), count = open && open < EVENTS ? count_to(open, rip) : 0;
    put_event(cpu, 6, (uint32_t[]){SIGNAL, b->id, count, (uint32_t)rip, rip >> 32, fault});
    return 1;
}

static void watch_block(struct begun *b) { b->watched = 1, b->share = LOOK; }

void watch(uint64_t handler) {
    for (unsigned i = 0; i < handlers_used; i++)
        if (handlers[i] == handler) return;
    if (handlers_used == HANDLERS) {
        dprintf(2, "archlbr: the program has more than %u signal handlers: record it with --engine unicorn\n", HANDLERS);
        _exit(70);
    }
    handlers[handlers_used++] = handler;
    for (uint32_t id = 1; id <= ring->blocks; id++)
        if (begun[id].start == handler) watch_block(&begun[id]);
}

void watch_if_handler(struct begun *b) {
    for (unsigned i = 0; i < handlers_used; i++)
        if (handlers[i] == b->start) watch_block(b);
}

/* --- what runs as a block starts --------------------------------------------------------------------------------------------- */

#define ENTRY(function) \
    __attribute__((used)) void function(unsigned, const struct begun *, const struct registers *); \
    __asm__(".text\n.globl " #function "_entry\n.hidden " #function "_entry\n" #function "_entry: mov %rbp, %rdx\n jmp " #function "\n")

ENTRY(on_block);
void on_block(unsigned cpu, const struct begun *b, const struct registers *r) {
    if (__builtin_expect(*(volatile const uint8_t *)&b->watched, 0)) signalled(cpu, b, r);
    put(cpu, b->id);
}

/* A block whose code may change: it is given up at a store into itself, and what follows begins there. */
ENTRY(on_careful_block);
void on_careful_block(unsigned cpu, const struct begun *b, const struct registers *r) {
    if (__builtin_expect(!started, 0)) start(r);
    if (period) settle(cpu);
    uint32_t open = careful[cpu].open, lost = b->watched && signalled(cpu, b, r);
    if (open && last_word(cpu) == open) {
        const struct block *before = &ring->block[open];
        /* With its last instruction begun, only a store in that one leads back there. */
        if (careful[cpu].reached ? b->start == before->last && before->count > 1 : b->start >= before->start && b->start < before->end) {
            put_event(cpu, 3, (uint32_t[]){RESTARTED, count_to(open, b->start), careful[cpu].reached});
            lost = 1;
        }
    }
    if (lost) streams[cpu]->last = &begun[0], streams[cpu]->must_ask = 1;
    if (period) step(cpu, b);
    else put(cpu, b->id);
    careful[cpu].open = b->id;
    careful[cpu].reached = 0;
}

void on_last_instruction(unsigned cpu, void *userdata) {
    (void)userdata;
    careful[cpu].reached = 1;
}

void forget_careful_blocks(void) { memset(careful, 0, sizeof careful); }
