/* The address space at work: brk growth, large stacks, mremap, guard pages, files mapped shared, holes filled again,
   System V segments side by side. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

__attribute__((noinline)) static unsigned deep(int depth) {
    volatile char frame[4000];
    memset((void *)frame, depth, sizeof frame);
    return depth ? deep(depth - 1) + (unsigned char)frame[17] : 1;
}

static char *segment(char name) {
    int id = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600);
    char *at = shmat(id, NULL, 0);
    shmctl(id, IPC_RMID, NULL); /* it goes with its last user */
    memset(at, name, 8192);
    return at;
}

int main(void) {
    char *start = sbrk(0);
    for (int i = 0; i < 20; i++) {
        char *more = sbrk(300000);
        memset(more, i, 300000);
    }
    int grown = (char *)sbrk(0) - start == 6000000 && start[299999] == 0 && start[300000] == 1;
    unsigned stacked = deep(1500); /* six megabytes */
    char *area = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(area + 65000, "moves along");
    char *moved = mremap(area, 65536, 4 << 20, MREMAP_MAYMOVE);
    int same = moved != MAP_FAILED && !strcmp(moved + 65000, "moves along");
    moved[(4 << 20) - 1] = 1;
    moved = mremap(moved, 4 << 20, 8192, 0);
    munmap(moved + 4096, 4096);
    char *again = mmap(moved + 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    int hole = again == moved + 4096 && again[0] == 0;
    int file = memfd_create("shared", 0);
    if (ftruncate(file, 8192)) return 90;
    char *one = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    char *two = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 4096);
    strcpy(one + 4096, "seen twice");
    int shared = !strcmp(two, "seen twice");
    void *big = malloc(50 << 20);
    memset(big, 1, 50 << 20);
    free(big);
    void *aligned = NULL;
    int fits = posix_memalign(&aligned, 1 << 20, 1000) == 0 && ((uintptr_t)aligned & 0xfffff) == 0;
    madvise(area, 0, MADV_DONTNEED);
    char *first = segment('a'), *second = segment('b'), *third = segment('c');
    mprotect(second + 4096, 4096, PROT_READ); /* in two pieces: both go */
    int detached = !shmdt(second) && first[8191] == 'a' && third[0] == 'c' && shmdt(second) == -1;
    detached += !shmdt(first) && !shmdt(third);
    printf("%d %u %d %d %d %d %d\n", grown, stacked, same, hole, shared, fits, detached);
    return 6;
}
