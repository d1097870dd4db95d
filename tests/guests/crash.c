/* Works, then dies: by SIGSEGV (a bad store), by a call into nothing, by abort, by an exit status; argv[1] says how. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    volatile unsigned sum = 0;
    for (unsigned i = 0; i < 50000; i++) sum += i % 7 ? i : sum / 2;
    printf("%u\n", sum);
    fflush(stdout);
    const char *how = argc > 1 ? argv[1] : "store";
    if (!strcmp(how, "store")) *(volatile int *)8 = 1;
    if (!strcmp(how, "call")) ((void (*volatile)(void))0)();
    if (!strcmp(how, "abort")) abort();
    if (!strcmp(how, "term")) raise(SIGTERM);
    return 3;
}
