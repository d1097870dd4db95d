/* setjmp and longjmp over several frames, many times. */
#include <setjmp.h>
#include <stdio.h>

static jmp_buf here;
static int deepest;

__attribute__((noinline)) static void dive(int depth, int bottom) {
    volatile int local = depth;
    if (depth == bottom) longjmp(here, bottom);
    dive(depth + 1, bottom);
    deepest += local;
}

int main(void) {
    volatile int sum = 0;
    for (volatile int i = 1; i < 20; i++) {
        int came = setjmp(here);
        if (came) sum += came;
        else dive(0, i);
    }
    printf("%d %d\n", sum, deepest);
    return sum & 0x7f;
}
