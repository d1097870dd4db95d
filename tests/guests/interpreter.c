/* A stack machine that computes Fibonacci numbers by recursion, greatest common divisors and random numbers. argv[1] scales it: about 10^6 taken branches a round. Calls of the interpreted program are calls of the
 * interpreter, so that call stacks are as deep as the recursion. */
#include <stdio.h>
#include <stdlib.h>

enum { PUSH, ADD, SUBTRACT, MULTIPLY, REST, DUP, SWAP, DROP, LESS, JUMP, JUMP_ZERO, CALL, RETURN, KINDS };

typedef struct {
    int kind, value;
} Op;

#define DEEPEST 256
static unsigned stack[DEEPEST];
static int depth;
static int next;

static void run(const Op *program, int from);

__attribute__((noinline)) static void fail(const char *reason) {
    puts(reason);
    exit(1);
}

static void need(int count) {
    if (depth < count) fail("too little on the stack");
}

static void push(const Op *program, int value) {
    if (program && depth == DEEPEST) fail("too much on the stack");
    stack[depth++] = (unsigned)value;
}

#define BINARY(name, expression)                        \
    static void name(const Op *program, int value) {    \
        (void)program, (void)value;                     \
        need(2);                                        \
        unsigned a = stack[depth - 2], b = stack[depth - 1]; \
        stack[--depth - 1] = expression;                \
    }
BINARY(add, a + b)
BINARY(subtract, a - b)
BINARY(multiply, a *b)
BINARY(rest, a % (b | !b))
BINARY(less, a < b)

static void dup(const Op *program, int value) {
    (void)program;
    need(value + 1);
    stack[depth] = stack[depth - 1 - value];
    depth++;
}
static void swap(const Op *program, int value) {
    (void)program, (void)value;
    need(2);
    unsigned kept = stack[depth - 1];
    stack[depth - 1] = stack[depth - 2];
    stack[depth - 2] = kept;
}
static void drop(const Op *program, int value) {
    (void)program, (void)value;
    need(1);
    depth--;
}
static void jump(const Op *program, int value) {
    if (program) next = value;
}
static void jump_zero(const Op *program, int value) {
    (void)program;
    need(1);
    if (!stack[--depth]) next = value;
}
static void call(const Op *program, int value) {
    int after = next;
    run(program, value);
    next = after;
}

static void (*const handlers[KINDS])(const Op *, int) = {
    push, add, subtract, multiply, rest, dup, swap, drop, less, jump, jump_zero, call, 0,
};

__attribute__((noinline)) static void run(const Op *program, int from) {
    next = from;
    for (;;) {
        const Op *op = &program[next++];
        if (op->kind == RETURN) return;
        handlers[op->kind](program, op->value);
    }
}

#define FIB 0
#define GCD 15
#define MIX 23
static const Op code[] = {
    /* fib(n): n < 2 ? n : fib(n - 1) + fib(n - 2) */
    {DUP, 0}, {PUSH, 2}, {LESS, 0}, {JUMP_ZERO, 5}, {RETURN, 0},
    {DUP, 0}, {PUSH, 1}, {SUBTRACT, 0}, {CALL, FIB}, {SWAP, 0}, {PUSH, 2}, {SUBTRACT, 0}, {CALL, FIB}, {ADD, 0}, {RETURN, 0},
    /* gcd(a, b): while (b) a, b = b, a % b */
    {DUP, 0}, {JUMP_ZERO, 21}, {SWAP, 0}, {DUP, 1}, {REST, 0}, {JUMP, GCD}, {DROP, 0}, {RETURN, 0},
    /* mix(x, n): n times x = (x * 1103515245 + 12345) % 65521 */
    {DUP, 0}, {JUMP_ZERO, 36}, {SWAP, 0}, {PUSH, 1103515245}, {MULTIPLY, 0}, {PUSH, 12345}, {ADD, 0}, {PUSH, 65521}, {REST, 0},
    {SWAP, 0}, {PUSH, 1}, {SUBTRACT, 0}, {JUMP, MIX}, {DROP, 0}, {RETURN, 0},
};

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 32;
    unsigned sum = 0;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 100; i++) {
            depth = 0;
            push(code, i % 10 + 3);
            run(code, FIB);
            push(code, 1071 + i * 17);
            push(code, 462 + round);
            run(code, GCD);
            push(code, i * 40 % 300);
            run(code, MIX);
            sum = sum * 31 + stack[0] + stack[1];
        }
    }
    printf("%u\n", sum);
    return (int)(sum & 0x3f);
}
