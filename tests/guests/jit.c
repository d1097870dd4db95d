/* Machine code written at run time, made executable, called, rewritten at the same address, called again. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* int f(int n): add up step from n down to 1 in a loop. */
static size_t emit(unsigned char *at, unsigned char step) {
    const unsigned char code[] = {0x31, 0xc0, 0x83, 0xc0, step, 0xff, 0xcf, 0x75, 0xf9, 0xc3};
    memcpy(at, code, sizeof code);
    return sizeof code;
}

int main(void) {
    unsigned char *page = mmap((void *)0x30000000, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page == MAP_FAILED) return 99;
    int sum = 0;
    for (int round = 1; round < 30; round++) {
        unsigned char *at = page + (round % 3) * 4090; /* the first of three lies over the page end */
        if (round % 3 == 2) at = page + 100;
        mprotect(page, 8192, PROT_READ | PROT_WRITE);
        emit(at, (unsigned char)round);
        mprotect(page, 8192, PROT_READ | PROT_EXEC);
        sum += ((int (*)(int))(void *)at)(round % 5 + 1);
    }
    munmap(page, 8192);
    unsigned char *both = mmap((void *)0x31000000, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (both == MAP_FAILED) return 98;
    for (int round = 1; round < 30; round++) {
        emit(both, (unsigned char)round);
        sum += ((int (*)(int))(void *)both)(2);
    }
    printf("%d\n", sum);
    return sum & 0x7f;
}
