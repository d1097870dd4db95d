/* What Frida's Stalker is told to add to each block of code that it translates: the block's number, appended to a stream.
 *
 * agent.js compiles this in the program's process (Frida's CModule, a small C compiler), with the sizes and codes of
 * cpu/qemu/stream.py and cpu/stalker/agent.py as macros. The ring is that of the QEMU plugin: descriptions of blocks, and a
 * circle of words for each thread. GS points to the thread's stream, so that a word is appended without a register to spare and
 * without a flag changed. What cannot be recorded exactly ends the program before it happens. Design: docs/decisions/044.
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
    u32 exits_used, plain_used, changed_used;
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

/* --- what the program does -------------------------------------------------------------------------------------------------- */

static int within(const struct range *ranges, u32 used, u64 start, u64 end) {
    u32 i;
    for (i = 0; i < used; i++)
        if (start >= ranges[i].start && end <= ranges[i].end) return 1;
    return 0;
}

static int touches(const struct range *ranges, u32 used, u64 start, u64 end) {
    u32 i;
    for (i = 0; i < used; i++)
        if (start < ranges[i].end && end > ranges[i].start) return 1;
    return 0;
}

void add_plain(u64 start, u64 end) {
    if (state.plain_used == PLAIN) refuse(MANY_MAPPINGS, 0);
    state.plain[state.plain_used].start = start;
    state.plain[state.plain_used++].end = end;
}

void add_changed(u64 start, u64 end) {
    if (state.changed_used == CHANGED) refuse(MANY_MAPPINGS, 0);
    state.changed[state.changed_used].start = start;
    state.changed[state.changed_used++].end = end;
}

/* Return where memory and a file's bytes differ next, at `from` or behind; size where nowhere. */
u64 find_change(const u8 *memory, const u8 *file, u64 from, u64 size) {
    while (from < size && memory[from] == file[from]) from++;
    return from;
}

void set_main(u64 address) { state.main = address; }
void set_thread_create(u64 address) { state.thread_create = address; }
void add_exit(u64 address) { state.exits[state.exits_used++] = address; }

static void begin(u64 address) {
    u32 number = g_atomic_int_add((volatile gint *)&state.ring->threads, 1);
    struct stream *s = &state.ring->stream[number];
    if (number >= THREADS) refuse(MANY_THREADS, 0);
    s->tid = call3(186, 0, 0, 0);
    s->self = (u64)s;
    s->slow = (u64)slow_way;
    s->begin = address;
    call3(158, 0x1001, (long)s, 0); /* arch_prctl(ARCH_SET_GS) */
}

/* Handlers that were there before main; Frida's own lie elsewhere. */
static void look_for_handlers(void) {
    u64 action[4], result;
    long number;
    for (number = 1; number <= 64; number++) {
        if (number == 32 || number == 33) continue; /* the C library's own, for threads: see on_call */
        __asm__ volatile("mov $8, %%r10\n syscall" : "=a"(result) : "a"(13), "D"(number), "S"(0), "d"(action) : "rcx", "r10", "r11", "memory");
        if (!result && within(state.plain, state.plain_used, action[0], action[0] + 1)) refuse(HANDLER, action[0]);
    }
}

void begin_main(void) {
    look_for_handlers();
    begin(state.main);
}
void begin_thread(struct thread *thread) { begin(thread->function); }
u64 main_address(void) { return state.main; }
void follow_on(void) { follow(); }

/* In place of main, and of a thread's function: from the return of `follow_on` on, the thread runs what Stalker translates. */
__asm__(
    ".globl enter_main\n"
    "enter_main:\n push %rdi\n push %rsi\n push %rdx\n"
    "call begin_main\n call follow_on\n call main_address\n"
    "pop %rdx\n pop %rsi\n pop %rdi\n jmp *%rax\n"
    ".globl enter_thread\n"
    "enter_thread:\n push %rdi\n"
    "call begin_thread\n call follow_on\n"
    "pop %rdi\n mov (%rdi), %rax\n mov 8(%rdi), %rdi\n jmp *%rax\n");
extern char enter_main[], enter_thread[];
u64 main_entry(void) { return (u64)enter_main; }

static void on_begin(GumCpuContext *cpu, gpointer data) {
    struct stream *s = own();
    if (s->state == BEFORE) {
        s->state = INSIDE;
        put(s, BEGUN);
    }
}

static void on_exit(GumCpuContext *cpu, gpointer data) {
    struct stream *s = own();
    u32 words[3] = {LEFT, (u32)(u64)data, (u64)data >> 32};
    if (s->state == INSIDE) {
        put_event(s, 3, words);
        s->state = AFTER;
    }
}

/* What Frida itself has changed, or nobody vouches for: the program's own only between its begin and its end. */
static void on_foreign_code(GumCpuContext *cpu, gpointer data) {
    if (own()->state == INSIDE)
        refuse(touches(state.changed, state.changed_used, (u64)data, (u64)data + 1) ? CHANGED_CODE : UNKNOWN_CODE, (u64)data);
}

static void on_refused(GumCpuContext *cpu, gpointer data) {
    refuse((u32)(u64)data, cpu->rip);
}

static void on_thread_create(GumCpuContext *cpu, gpointer data) {
    u32 slot = g_atomic_int_add((volatile gint *)&state.slots, 1);
    if (slot >= THREADS) refuse(MANY_THREADS, 0);
    state.thread[slot].function = cpu->rdx;
    state.thread[slot].argument = cpu->rcx;
    cpu->rdx = (u64)enter_thread;
    cpu->rcx = (u64)&state.thread[slot];
    own()->creating = 1;
}

static void on_call(GumCpuContext *cpu, gpointer data) {
    struct stream *s = own();
    u64 a = cpu->rdi, b = cpu->rsi, c = cpu->rdx, d = cpu->r10, flags = a, pages = (b + 4095) & -4096ul;
    u32 i, name[5] = {NAMED, 0, 0, 0, 0};
    switch (cpu->rax) {
    case 57: case 58: refuse(FORKS, 0); /* fork, vfork */
    case 59: case 322: refuse(EXECUTES, 0); /* execve, execveat */
    case 435: flags = *(u64 *)a; /* clone3 */
    case 56: /* clone */
        if (!(flags & 0x10000)) refuse(FORKS, 0);
        if (!s->creating) refuse(BARE_THREAD, 0);
        s->creating = 0;
        break;
    case 13: if (b && *(u64 *)b > 1 && a != 32 && a != 33) refuse(HANDLER, *(u64 *)b); break; /* rt_sigaction */
    case 105: case 106: case 113: case 114: case 116: case 117: case 119: refuse(BROADCASTS, 0); /* setuid to setresgid */
    case 234: if (c == 32 || c == 33) refuse(BROADCASTS, 0); break; /* tgkill, from pthread_cancel */
    case 9: /* mmap */
        if (c & 4) refuse(d & 0x20 ? MAKES_CODE : LOADS, 0);
        if (d & 0x10 && touches(state.plain, state.plain_used, a, a + pages)) refuse(UNLOADS, 0);
        break;
    case 10: case 329: if (c & 4 || touches(state.plain, state.plain_used, a, a + pages)) refuse(MAKES_CODE, 0); break; /* mprotect */
    case 11: if (touches(state.plain, state.plain_used, a, a + pages)) refuse(UNLOADS, 0); break; /* munmap */
    case 25: if (touches(state.plain, state.plain_used, a, a + pages)) refuse(MAKES_CODE, 0); break; /* mremap */
    case 30: if (c & 0100000) refuse(MAKES_CODE, 0); break; /* shmat */
    case 158: if (a == 0x1001) refuse(USES_GS, 0); break; /* arch_prctl(ARCH_SET_GS) */
    case 157: /* prctl(PR_SET_NAME) */
        if (a == 15) {
            for (i = 0; i < 15 && ((char *)b)[i]; i++) ((char *)(name + 1))[i] = ((char *)b)[i];
            put_event(s, 5, name);
        }
        break;
    }
    put(s, SYSCALL);
}

static void on_return(GumCpuContext *cpu, gpointer data) {
    put(own(), RETURNED);
}

/* --- translation --------------------------------------------------------------------------------------------------------------- */

/* mov %rcx, %gs:0x40; mov %gs:0, %ecx; movl $WORD, %gs:0x1000(,%rcx,4); lea 1(%rcx), %ecx; mov %ecx, %gs:0; movzx %cx, %ecx;
 * jrcxz slow; back: mov %gs:0x40, %rcx; jmp on; slow: lea back(%rip), %rcx; jmp *%gs:0x80; on: */
static void append(GumX86Writer *writer, u32 word) {
    u8 code[] = {
        0x65, 0x48, 0x89, 0x0C, 0x25, 0x40, 0, 0, 0, 0x65, 0x8B, 0x0C, 0x25, 0, 0, 0, 0,
        0x65, 0xC7, 0x04, 0x8D, 0, 0x10, 0, 0, word, word >> 8, word >> 16, word >> 24,
        0x8D, 0x49, 1, 0x65, 0x89, 0x0C, 0x25, 0, 0, 0, 0, 0x0F, 0xB7, 0xC9,
        0xE3, 11, 0x65, 0x48, 0x8B, 0x0C, 0x25, 0x40, 0, 0, 0, 0xEB, 15,
        0x48, 0x8D, 0x0D, -18, 0xFF, 0xFF, 0xFF, 0x65, 0xFF, 0x24, 0x25, 0x80, 0, 0, 0,
    };
    gum_x86_writer_put_bytes(writer, code, sizeof code);
}

static void describe(struct block *b, u64 start, u64 last, u32 count, u32 size, const u8 *code) {
    b->start = start, b->end = last + size, b->last = last, b->count = count, b->size = size;
    memcpy(b->code, code, size);
    state.ring->blocks++;
}

static int ends_block(const cs_insn *insn) {
    u32 i;
    for (i = 0; insn->detail && i < insn->detail->groups_count; i++)
        if (insn->detail->groups[i] == CS_GRP_JUMP || insn->detail->groups[i] == CS_GRP_CALL || insn->detail->groups[i] == CS_GRP_RET)
            return 1;
    return 0;
}

void transform(GumStalkerIterator *iterator, GumStalkerOutput *output, gpointer data) {
    GumX86Writer *writer = output->writer.x86;
    const cs_insn *insn;
    struct stream *s = own();
    u64 start = 0, last = 0;
    u32 count = 0, size = 0, i, id;
    u8 code[16];
    gum_spinlock_acquire(&state.ring->lock);
    while (gum_stalker_iterator_next(iterator, &insn)) {
        int final = 0;
        if (!count) {
            start = insn->address;
            if (state.ring->blocks == BLOCKS - 1) refuse(MANY_BLOCKS, 0);
            if (start == s->begin && s->state == BEFORE) gum_stalker_iterator_put_callout(iterator, on_begin, NULL, NULL);
            for (i = 0; i < state.exits_used; i++)
                if (start == state.exits[i]) gum_stalker_iterator_put_callout(iterator, on_exit, (gpointer)start, NULL);
            if (start == state.thread_create) gum_stalker_iterator_put_callout(iterator, on_thread_create, NULL, NULL);
            id = state.ring->blocks + 1;
            append(writer, id);
        }
        last = insn->address, size = insn->size, count++;
        memcpy(code, insn->bytes, size);
        if (!within(state.plain, state.plain_used, last, last + size) || touches(state.changed, state.changed_used, last, last + size))
            gum_stalker_iterator_put_callout(iterator, on_foreign_code, (gpointer)last, NULL);
        switch (insn->id) {
        case X86_INS_LOOP: case X86_INS_LOOPE: case X86_INS_LOOPNE:
            gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)LOOPS, NULL);
            break;
        case X86_INS_WRGSBASE:
            gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)USES_GS, NULL);
            break;
        case X86_INS_XBEGIN:
            gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)TRANSACTS, NULL);
            break;
        case X86_INS_INT: case X86_INS_SYSENTER: case X86_INS_LJMP: case X86_INS_LCALL: case X86_INS_RETF: case X86_INS_RETFQ:
        case X86_INS_IRET: case X86_INS_IRETD: case X86_INS_IRETQ:
            gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)FAR, NULL);
            break;
        case X86_INS_SYSCALL:
            final = 1;
            gum_stalker_iterator_put_callout(iterator, on_call, NULL, NULL);
            break;
        default:
            final = ends_block(insn);
        }
        i = insn->id;
        gum_stalker_iterator_keep(iterator);
        if (i == X86_INS_SYSCALL) gum_stalker_iterator_put_callout(iterator, on_return, NULL, NULL);
        if (final) {
            describe(&state.ring->block[id], start, last, count, size, code);
            count = 0;
        }
    }
    if (count) describe(&state.ring->block[id], start, last, count, size, code);
    gum_spinlock_release(&state.ring->lock);
}
