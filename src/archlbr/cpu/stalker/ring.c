/* The ring and its streams, as transform.c and program.c write them: the QEMU plugin's layout (cpu/qemu/stream.py).
 *
 * Descriptions of blocks, and a circle of words for each thread; GS points to the thread's stream. cpu/stalker/agent.py compiles the
 * three files as one. Design: docs/decisions/044.
 */
#include <gum/gumstalker.h>
#include <gum/gumspinlock.h>
#include <string.h>

typedef guint8 u8;
typedef guint32 u32;
typedef guint64 u64;

#define WORDS (CHUNK * CHUNKS)

struct block { u64 start, end, last; u32 count, size; u8 code[16]; }; /* code: of the last instruction */
/* The offsets of its first page stand in the code below as numbers. */
struct stream {
    u32 next, laps, consumed, tid; /* 00 04 08 0C */
    u64 ready, self;               /* 10 18 */
    u64 unused0[4];
    u64 rcx, back, unused1[6];     /* 40 48 */
    u64 slow;                      /* 80 */
    u64 begin;                     /* 88: where recording starts */
    u32 state, creating, chunks;   /* 90 */
    u8 wide[4096 - 0x9C];
    u32 words[WORDS];
};
struct ring {
    u32 blocks, threads, reason, bell;
    u64 where, unused0;
    GumSpinlock lock;
    u8 unused[4096 - 40];
    struct block block[BLOCKS];
    struct stream stream[THREADS];
};
struct range { u64 start, end; };
struct thread { u64 function, argument; };
struct state {
    struct ring *ring;
    u64 slots, main, thread_create, exits[8];
    u8 *loops; /* code that does what a LOOP does, with instructions that Stalker knows */
    u32 exits_used, plain_used, changed_used, loops_used;
    struct range plain[PLAIN], changed[CHANGED]; /* code that cannot change; what Frida has put into libraries */
    struct thread thread[THREADS];
};
extern struct state state;
extern void follow(void);
enum { BEFORE, INSIDE, AFTER };

static long call3(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static long futex(u32 *word, long operation, u32 value, void *timeout) {
    long result;
    __asm__ volatile("mov %5, %%r10\n syscall"
                     : "=a"(result) : "a"(202), "D"(word), "S"(operation), "d"((long)value), "c"(timeout) : "r10", "r11", "memory");
    return result;
}

static struct stream *own(void) {
    struct stream *stream;
    __asm__ volatile("movq %%gs:0x18, %0" : "=r"(stream));
    return stream;
}

void refuse(u32 reason, u64 where) {
    state.ring->where = where;
    state.ring->reason = reason;
    call3(231, 70, 0, 0);
}

/* --- streams --------------------------------------------------------------------------------------------------------------- */

static void ring_bell(void) {
    state.ring->bell++;
    futex(&state.ring->bell, 1, 1, NULL);
}

void end_chunk(void) {
    struct stream *s = own();
    u64 second[2] = {1, 0};
    if (s->next == WORDS) s->next = 0, *(volatile u32 *)&s->laps = s->laps + 1;
    s->chunks++;
    ring_bell();
    for (;;) {
        u32 consumed = *(volatile u32 *)&s->consumed;
        if (s->chunks - consumed < CHUNKS) return;
        futex(&s->consumed, 0, consumed, second);
    }
}

/* Reached where a chunk is full, from the code that `append` writes: RCX holds the way back, the program's RCX lies in the stream.
 * The 128 bytes under RSP are the program's. */
__asm__(
    ".globl slow_way\n"
    "slow_way:\n"
    "lea -128(%rsp), %rsp\n pushfq\n push %rax\n push %rcx\n push %rdx\n push %rbx\n push %rbp\n push %rsi\n push %rdi\n"
    "push %r8\n push %r9\n push %r10\n push %r11\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "mov %rsp, %rbp\n and $-16, %rsp\n cld\n call end_chunk\n mov %rbp, %rsp\n"
    "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %r11\n pop %r10\n pop %r9\n pop %r8\n"
    "pop %rdi\n pop %rsi\n pop %rbp\n pop %rbx\n pop %rdx\n pop %rcx\n pop %rax\n popfq\n lea 128(%rsp), %rsp\n"
    "mov %rcx, %gs:0x48\n mov %gs:0x40, %rcx\n .byte 0x65, 0xFF, 0x24, 0x25, 0x48, 0, 0, 0\n"); /* jmp *%gs:0x48, which the compiler gets wrong */
extern char slow_way[];

static void put(struct stream *s, u32 word) {
    s->words[s->next] = word;
    if (!(++s->next % CHUNK)) end_chunk();
}

/* An event never lies across two chunks, so that its reader has all of it. */
static void put_event(struct stream *s, u32 count, const u32 *words) {
    u32 i;
    if (s->next % CHUNK + count > CHUNK)
        do put(s, 0); while (s->next % CHUNK);
    for (i = 0; i < count; i++) put(s, words[i]);
}

/* Stalker's own code runs between blocks, and saves no more than YMM0 to YMM15 around it; to restore these clears what lies above.
 * This writes code that keeps all of ZMM0 to ZMM31 and K0 to K7 in the stream instead, from 0x200 on, and returns.
 * vmovdqu64 and kmovq, to or from %gs:DISPLACEMENT. */
void write_wide(u8 *at, u32 restore) {
    u32 i, place = 0x200;
    for (i = 0; i < 32; i++, place += 64) {
        u8 code[] = {0x65, 0x62, 0x61 | (i & 8 ? 0 : 0x80) | (i & 16 ? 0 : 0x10), 0xFE, 0x48, restore ? 0x6F : 0x7F,
                     0x04 | (i & 7) << 3, 0x25, place, place >> 8, 0, 0};
        memcpy(at, code, sizeof code);
        at += sizeof code;
    }
    for (i = 0; i < 8; i++, place += 8) {
        u8 code[] = {0x65, 0xC4, 0xE1, 0xF8, restore ? 0x90 : 0x91, 0x04 | i << 3, 0x25, place, place >> 8, 0, 0};
        memcpy(at, code, sizeof code);
        at += sizeof code;
    }
    *at = 0xC3;
}
