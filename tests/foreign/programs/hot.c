/* A program with the branches an optimiser cares about: a skewed switch, an indirect call through a table, recursion, a loop
 * nest with a rare path, a library call. Its output depends on every one of them.
 *
 *     hot ROUNDS
 */
#include <stdio.h>
#include <stdlib.h>

typedef unsigned (*step_fn)(unsigned);

static unsigned state = 12345;

__attribute__((noinline)) static unsigned draw(void) { return state = state * 1103515245u + 12345u; }
__attribute__((noinline)) static unsigned twice(unsigned x) { return 2 * x + 1; }
__attribute__((noinline)) static unsigned thrice(unsigned x) { return x % 3 ? 3 * x : x / 3; }
__attribute__((noinline)) static unsigned fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static step_fn steps[4];

__attribute__((noinline)) static unsigned classify(unsigned x) {
    switch (x >> 28) {
    case 0: return x + 1;
    case 1: return fib(5);
    case 2: return x ^ 0x5a5a;
    case 3: return x % 7 ? 3 : draw();
    case 4: return x * 3;
    default: return x & 15;
    }
}

__attribute__((noinline)) static void order(unsigned *values, int count) {
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && values[j] < values[j - 1]; j--) {
            unsigned moved = values[j];
            values[j] = values[j - 1];
            values[j - 1] = moved;
        }
}

static int compare(const void *one, const void *other) {
    unsigned a = *(const unsigned *)one, b = *(const unsigned *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 10;
    unsigned total = 0, values[16];
    steps[0] = twice, steps[1] = thrice, steps[2] = twice, steps[3] = classify;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 16; i++)
            values[i] = classify(draw()) + steps[draw() >> 30](i);
        if (round % 4 == 3)
            qsort(values, 16, sizeof values[0], compare);
        else
            order(values, 16);
        total = total * 31 + values[0] + values[15];
    }
    printf("%u\n", total);
    return 0;
}
