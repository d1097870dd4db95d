/* The benchmark kernel: quicksort, sieve, Fibonacci, an indirect call table. argv[1] scales it: 10^6 taken branches a round. */
#include <stdio.h>
#include <stdlib.h>

static unsigned seed = 12345;
static unsigned next(void) { return seed = seed * 1103515245u + 12345u; }

static void quicksort(int *a, int low, int high) {
    while (low < high) {
        int pivot = a[(low + high) / 2], i = low, j = high;
        while (i <= j) {
            while (a[i] < pivot) i++;
            while (a[j] > pivot) j--;
            if (i <= j) {
                int t = a[i];
                a[i++] = a[j];
                a[j--] = t;
            }
        }
        quicksort(a, low, j);
        low = i;
    }
}

static int sieve(unsigned char *composite, int n) {
    int primes = 0;
    for (int i = 0; i < n; i++) composite[i] = 0;
    for (int i = 2; i < n; i++) {
        if (composite[i]) continue;
        primes++;
        for (int j = i * 2; j < n; j += i) composite[j] = 1;
    }
    return primes;
}

__attribute__((noinline)) static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static int add(int a) { return a + 3; }
static int twist(int a) { return a ^ 0x55; }
static int twice(int a) { return a * 2; }
static int half(int a) { return a / 2 + 7; }
static int (*const volatile table[])(int) = {add, twist, twice, half};

#define NUMBERS 20000
#define SIEVE 50000

static int numbers[NUMBERS];
static unsigned char composite[SIEVE];

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 32;
    unsigned sum = 0;
    int value = 1;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < NUMBERS; i++) numbers[i] = (int)(next() >> 8);
        quicksort(numbers, 0, NUMBERS - 1);
        for (int i = 0; i < NUMBERS; i++) sum = sum * 31 + (unsigned)numbers[i];
        sum += (unsigned)sieve(composite, SIEVE);
        sum += (unsigned)fib(22);
        for (int i = 0; i < 100000; i++) value = table[(unsigned)(value + i) % 4](value) & 0xffff;
    }
    printf("%u %d\n", sum, value);
    return value & 0x3f;
}
