/* Maps fresh pages over its own code with MAP_FIXED, and so dies of what it then runs. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

int main(void) {
    puts("about to vanish");
    fflush(stdout);
    void *page = (void *)((uintptr_t)&main & ~4095ul);
    mmap(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return 3; /* zero bytes: ADD %al,(%rax), until something faults */
}
