/* A small interpreter: a program of operations, run many times. What a compiler cannot know is which operations are hot. */
#include <stdio.h>
#include <stdlib.h>

enum { ADD, SUB, MUL, XOR, ROT, LOAD, STORE, SKIP, CHECK, OPERATIONS };

struct operation {
    unsigned char kind, from, to;
    int value;
};

struct machine {
    unsigned registers[8], memory[64];
    unsigned long faults, stores;
};

static void fault(struct machine *m, const struct operation *op, const char *why) {
    if (m->faults++ < 3) fprintf(stderr, "%s at register %d\n", why, op->to);
}

static unsigned checked(struct machine *m, const struct operation *op, unsigned a, unsigned b) {
    if (a == 0xdeadbeef) { fault(m, op, "poisoned operand"); return 0; }
    if (b == 0xdeadbeef) { fault(m, op, "poisoned value"); return 0; }
    if (op->from > 7 || op->to > 7) { fault(m, op, "no such register"); return 0; }
    return a + b;
}

static void step_add(struct machine *m, const struct operation *op) {
    m->registers[op->to] = checked(m, op, m->registers[op->from], op->value);
}
static void step_sub(struct machine *m, const struct operation *op) {
    m->registers[op->to] = checked(m, op, m->registers[op->from], -op->value);
}
static void step_mul(struct machine *m, const struct operation *op) { m->registers[op->to] *= op->value | 1; }
static void step_xor(struct machine *m, const struct operation *op) { m->registers[op->to] ^= m->registers[op->from]; }
static void step_rot(struct machine *m, const struct operation *op) {
    unsigned a = m->registers[op->to];
    m->registers[op->to] = a << 7 | a >> 25;
}
static void step_load(struct machine *m, const struct operation *op) {
    m->registers[op->to] = m->memory[(m->registers[op->from] + op->value) % 64];
}
static void step_store(struct machine *m, const struct operation *op) {
    m->memory[(m->registers[op->to] + op->value) % 64] = m->registers[op->from];
    m->stores++;
}
static void step_skip(struct machine *m, const struct operation *op) { (void)m; (void)op; }
static void step_check(struct machine *m, const struct operation *op) {
    if (m->registers[op->to] == 0xdeadbeef) fault(m, op, "poisoned register");
}

typedef void (*step)(struct machine *, const struct operation *);
static const step steps[OPERATIONS] = {
    step_add, step_sub, step_mul, step_xor, step_rot, step_load, step_store, step_skip, step_check,
};

int main(int argc, char **argv) {
    long rounds = argc > 1 ? atol(argv[1]) : 100;
    static struct operation program[4096];
    static struct machine m;
    unsigned seed = 1;
    for (int i = 0; i < 4096; i++) {
        seed = seed * 1103515245u + 12345u;
        /* Nine of ten operations add; the rest is everything else. */
        int kind = (seed >> 16) % 10 ? ADD : (int)((seed >> 20) % OPERATIONS);
        program[i] = (struct operation){kind, (seed >> 8) % 8, (seed >> 11) % 8, (int)(seed >> 24)};
    }
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < 4096; i++) steps[program[i].kind](&m, &program[i]);
    unsigned sum = 0;
    for (int i = 0; i < 8; i++) sum = sum * 31 + m.registers[i];
    printf("%u %lu %lu\n", sum, m.stores, m.faults);
    return 0;
}
