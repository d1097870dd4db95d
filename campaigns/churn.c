/* Never ends by itself: memory, threads, children, signals and code that is written anew, round after round. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

static void on_signal(int number) {
    caught += number;
}

static int compare(const void *one, const void *other) {
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return a < b ? -1 : a > b;
}

/* Fills a heap block, sorts it through a pointer to a function, gives it back. */
static uint32_t sorted(uint32_t seed) {
    size_t count = 64 + seed % 4096;
    uint32_t *row = malloc(count * sizeof *row), middle;
    for (size_t at = 0; at < count; at++)
        row[at] = seed = seed * 1664525u + 1013904223u;
    qsort(row, count, sizeof *row, compare);
    middle = row[count / 2];
    free(row);
    return middle;
}

static void *thread(void *seed) {
    return (void *)(uintptr_t)sorted((uint32_t)(uintptr_t)seed);
}

/* Maps pages, writes a function that returns the seed, calls it, unmaps it all. */
static int written(uint32_t seed) {
    unsigned char code[6] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $seed, %eax; ret */
    size_t size = 4096u * (1 + seed % 16);
    memcpy(code + 1, &seed, 4);
    unsigned char *page = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return 0;
    memcpy(page, code, sizeof code);
    uint32_t (*made)(void) = (uint32_t (*)(void))(void *)page;
    int right = made() == seed;
    munmap(page, size);
    return right;
}

int main(void) {
    signal(SIGUSR1, on_signal);
    for (uint32_t round = 1;; round++) {
        uint32_t seed = round * 2654435761u;
        for (int turn = 0; turn < 16; turn++)
            seed ^= sorted(seed + turn);
        if (!written(seed)) {
            fprintf(stderr, "round %u: the written code went wrong\n", round);
            return 1;
        }
        raise(SIGUSR1);
        if (round % 16 == 0) {
            pthread_t other;
            if (pthread_create(&other, NULL, thread, (void *)(uintptr_t)seed) || pthread_join(other, NULL))
                return 2;
        }
        if (round % 128 == 0) {
            pid_t child = fork();
            if (child == 0)
                _exit(sorted(seed) & 1);
            if (child < 0 || waitpid(child, NULL, 0) != child)
                return 3;
            printf("%u\n", round);
            fflush(stdout);
        }
        usleep(20000);
    }
}
