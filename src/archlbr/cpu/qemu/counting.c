/* Counting: what no sample will show is counted as it runs, and not written.
 *
 * A sample shows the last branches before it, and the predictor is asked of no branch that lies further back
 * (docs/decisions/011). So of each period all but its end is two sums, taken branches and instructions, which the reader has as
 * one event (COUNTED), with the block that runs then. When the next sample comes is known from the last one; after a signal, code
 * that changed, execve and an ending that ends.c does not know, the reader is asked, and everything is written until it answers.
 *
 * `sum` has the branches still to be counted, negative, in its upper 16 bits and the instructions of all blocks begun in the
 * others. At 0 it carries, as it does at every block that is to be looked at closer (LOOK) and, being all ones, while blocks are
 * written.
 */
#include "plugin.h"

#define UPPER (1u << (64 - LOWER))
#define MOST (UPPER - 2) /* branches in one sum, so that LOOK carries */
#define LEAST 32 /* so few are not worth the event */
#define SETTLES 1024 /* after so many the reader hears of them, whatever was written */

uint64_t period;

void begin_counting(unsigned cpu, int known) {
    struct stream *s = streams[cpu];
    s->sum = ~0ul;
    s->last = &begun[0];
    s->counts = s->near = 0;
    s->until = period;
    s->known = known;
    s->must_ask = !known;
}

/* Nothing of what runs is pending: the reader knows the branches before the last block, and that it is the one that runs. */
void settle(unsigned cpu) {
    struct stream *s = streams[cpu];
    if (s->near) s->until = s->near, s->near = 0;
    if (!s->counts) return;
    uint64_t taken = (s->sum >> LOWER) - (UPPER - s->skipped);
    uint64_t retired = (s->sum & ((1ul << LOWER) - 1)) - s->last->count;
    s->sum = ~0ul;
    s->counts = 0;
    s->until -= taken;
    if (!taken && !retired) return; /* not even the block that was written last has ended */
    put_event(cpu, 4, (uint32_t[]){COUNTED, taken, (uint32_t)retired, retired >> 32});
    put(cpu, s->last->id);
    if (!(++s->settles % SETTLES)) post_progress(cpu);
}

/* Something else than the next block follows the one that runs. */
void interrupted(unsigned cpu) {
    if (!period) return;
    settle(cpu);
    streams[cpu]->last = &begun[0];
}

/* How many taken branches are there to the next sample, from this block on? The running block stays the last word. */
static __attribute__((noinline)) void ask(unsigned cpu, const struct begun *b) {
    struct stream *s = streams[cpu];
    s->must_ask = s->known = 0;
    s->since = 0;
    put_event(cpu, 2, (uint32_t[]){ASKED, ++s->asked});
    put_event(cpu, 4, (uint32_t[]){COUNTED, 0, 0, 0});
    put(cpu, b->id);
}

static void hear(struct stream *s) {
    if (__atomic_load_n(&s->answered, __ATOMIC_ACQUIRE) != s->asked) return;
    if (s->left <= 0 && !s->since) return; /* a sample is overdue, and comes with the next branch */
    s->until = s->left - s->since;
    while (s->until <= 0) s->until += period;
    s->known = 1;
}

/* Write a block that starts, and count those that follow where no sample is near. */
void step(unsigned cpu, const struct begun *b) {
    struct stream *s = streams[cpu];
    const struct begun *before = s->last;
    int64_t taken = before->ending >= CONDITIONAL && b->start != before->after;
    put(cpu, b->id);
    s->last = b;
    s->until -= taken;
    s->since += taken;
    if (!s->known) hear(s);
    else if (s->until <= 0) s->until = period;
    if (s->must_ask || before->ending == UNSURE) ask(cpu, b);
    s->sum = ~0ul;
    s->near = 0;
    if (!s->known || b->share == LOOK) return;
    if (s->until <= LEARNT + LEAST) {
        s->near = s->until;
        return;
    }
    s->skipped = s->until - LEARNT < MOST ? s->until - LEARNT : MOST;
    s->sum = (uint64_t)-(int64_t)s->skipped << LOWER | b->share;
    s->counts = 1;
}

/* Reached by what follows, where the sum carries: nothing of this block has been counted. Near a sample that is each block, and
 * the one before it does not need to be looked at. */
__attribute__((used)) void look_closer(unsigned cpu, const struct begun *b, const struct registers *r) {
    struct stream *s = streams[cpu];
    int64_t near = s->near - (b->start != s->last->after);
    if (__builtin_expect(near > 0 && b->share != LOOK, 1)) {
        s->near = near;
        s->last = b;
        put(cpu, b->id);
        return;
    }
    settle(cpu);
    if (b->watched && signalled(cpu, b, r)) s->last = &begun[0], s->must_ask = 1;
    step(cpu, b);
}

/* Called at the start of each block, so these few instructions are what counting costs: EDI has the processor, RSI the block.
 *
 *     const struct begun *before = streams[cpu]->last;
 *     uint64_t sum = streams[cpu]->sum + b->share + ((uint64_t)(b->start != before->after) << LOWER);
 *     if (it carried) return look_closer(cpu, b, RBP);
 *     streams[cpu]->sum = sum, streams[cpu]->last = b;
 */
__asm__(".text\n"
        ".p2align 5\n"
        ".globl on_counted_block_entry\n"
        ".hidden on_counted_block_entry\n"
        "on_counted_block_entry:\n"
        " lea streams(%rip), %rax\n"
        " mov (%rax,%rdi,8), %rcx\n"
        " mov 72(%rcx), %rdx\n"
        " xor %eax, %eax\n"
        " mov 8(%rdx), %rdx\n"
        " cmp %rdx, (%rsi)\n"
        " setne %al\n"
        " shl $48, %rax\n"
        " add 16(%rsi), %rax\n"
        " add 64(%rcx), %rax\n"
        " jc 1f\n"
        " mov %rax, 64(%rcx)\n"
        " mov %rsi, 72(%rcx)\n"
        " ret\n"
        "1: mov %rbp, %rdx\n"
        " jmp look_closer\n");
