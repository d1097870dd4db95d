/* What the parts of the plugin share: QEMU's interface, what lies in the ring, and which part offers what. */
#ifndef PLUGIN_H
#define PLUGIN_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>

/* What is used of QEMU's plugin interface, version 1 (docs/devel/tcg-plugins.rst); Debian ships no header for it. */
typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
#define EXPORT __attribute__((visibility("default")))
enum { CB_NO_REGS };
void qemu_plugin_register_vcpu_init_cb(plugin_id, void (*)(plugin_id, unsigned));
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                              uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, int64_t));
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);
const char *qemu_plugin_path_to_binary(void);

#define WORDS (CHUNK * CHUNKS)

/* A block as the reader knows it. code: of the last instruction; ending: an enum ending, 0 where nobody counts. */
struct block { uint64_t start, end, last; uint32_t count; uint8_t size, ending, unused[2], code[16]; };

/* A block as the code that runs at its start knows it. after: where the program goes on when no branch is taken, NEVER where one
 * always is. share: the block's instructions, or LOOK, which takes every count over its end. */
struct begun { uint64_t start, after, share; uint32_t id; uint16_t count; uint8_t ending, watched; };
#define NEVER (~0ul)
#define LOWER 48 /* bits of a sum that hold instructions */
#define LOOK (0xFFFEul << LOWER) /* a taken branch added to it does not carry yet */

/* A thread's words, a circle of so many, and what counting.c keeps of it. The reader writes `consumed`, `left` and `answered`. */
struct stream {
    uint32_t next, laps, consumed, unused[13];
    uint64_t sum;
    const struct begun *last;
    int64_t until, since, near;
    uint32_t skipped, counts, asked, known, must_ask, settles;
    int64_t left;
    uint32_t answered, circle, unused_again[1024 - 36];
    uint32_t words[WORDS];
};
struct ring {
    uint32_t blocks, unused;
    const struct begun *begun;
    uint32_t unused_too[1020];
    struct block block[BLOCKS];
    struct stream stream[THREADS];
    struct stream first; /* of the first thread, whose circle is longer: it runs while its reader is still being loaded */
    uint32_t more[(FIRST_CHUNKS - CHUNKS) * CHUNK];
};
_Static_assert(sizeof(struct block) == 48 && offsetof(struct ring, block) == 4096, "as stream.py has it");
_Static_assert(offsetof(struct stream, sum) == 64 && offsetof(struct stream, left) == 128, "as stream.py and counting.c have it");
_Static_assert(offsetof(struct stream, words) == 4096 && sizeof(struct begun) == 32, "as stream.py has it");

/* The CPU's registers lie at the front of what TCG's code keeps in RBP, RAX RCX RDX RBX RSP RBP RSI RDI R8.., then RIP. At the
 * start of a block they are all in memory. `start` checks that it is so. */
struct registers { uint64_t general[16], rip; };

/* messages.c: what is rare, through a FIFO */
extern const char *folder;
extern unsigned gone; /* the recorder has ended */
void die(const char *what);
void post(uint32_t type, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, const char *text);
void post_progress(unsigned cpu);

/* streams.c: what a thread runs */
extern struct ring *ring;
extern struct stream *streams[THREADS];
extern struct begun begun[BLOCKS];
extern uint8_t *lengths[BLOCKS]; /* of each block's instructions */
uint64_t map_ring(void);
void end_chunk(struct stream *s, unsigned cpu);
void put_event(unsigned cpu, unsigned count, const uint32_t *words);
int signalled(unsigned cpu, const struct begun *b, const struct registers *r);
void watch(uint64_t handler);
void watch_if_handler(struct begun *b);
void on_block_entry(unsigned cpu, void *userdata);
void on_careful_block_entry(unsigned cpu, void *userdata);
void on_last_instruction(unsigned cpu, void *userdata);
void forget_careful_blocks(void);


static inline void put(unsigned cpu, uint32_t word) {
    struct stream *s = streams[cpu];
    uint32_t n = s->next;
    s->words[n] = word;
    s->next = ++n;
    if (__builtin_expect(!(n % CHUNK), 0)) end_chunk(s, cpu);
}

/* counting.c: what no sample will show is not written */
extern uint64_t period; /* 0: everything is written */
void begin_counting(unsigned cpu, int known);
void settle(unsigned cpu);
void interrupted(unsigned cpu);
void step(unsigned cpu, const struct begun *b);
void on_counted_block_entry(unsigned cpu, void *userdata);

/* ends.c: how a block's last instruction can go on. ODD: the reader knows how many instructions that were, and no branch is
 * counted; UNSURE: it knows more. */
enum ending { UNSURE = 1, ODD, PLAIN, CONDITIONAL, ALWAYS };
enum ending ending_of(const uint8_t *code, unsigned size, uint64_t address, uint32_t count);

/* mappings.c: where code lies */
struct range { uint64_t start, end; int plain; }; /* plain: it cannot change */
void remove_range(uint64_t start, uint64_t end);
const struct range *range_of(uint64_t address);
void announce(uint64_t start, uint64_t end, int rights);
void announce_program(const char *path);

/* processes.c: fork and execve */
extern __thread unsigned here; /* the thread's processor */
void keep_words(unsigned count);
void follow_forks(void);
void follow_exec(uint64_t path_at, uint64_t argv_at, uint64_t envp_at);
void reveal(uint64_t stack); /* the variables that follow_exec, or plugin.py, has hidden from QEMU */

/* branches.c */
extern unsigned started;
void start(const struct registers *r);

#endif
