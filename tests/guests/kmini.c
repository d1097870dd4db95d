/* The benchmark kernel's parts at a size for single-stepping: quicksort, sieve, recursion, indirect calls. No C library. */
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
    for (int i = 2; i < n; i++) {
        if (composite[i]) continue;
        primes++;
        for (int j = i * 2; j < n; j += i) composite[j] = 1;
    }
    return primes;
}

__attribute__((noinline, optimize("no-optimize-sibling-calls"))) static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static int add(int a) { return a + 3; }
static int twist(int a) { return a ^ 0x55; }
static int twice(int a) { return a * 2; }
static int (*const volatile table[])(int) = {add, twist, twice, add};

static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static void print(unsigned value) {
    char text[12];
    int at = sizeof text;
    text[--at] = '\n';
    do text[--at] = (char)('0' + value % 10);
    while (value /= 10);
    call(1, 1, (long)(text + at), (long)sizeof text - at);
}

static int numbers[400];
static unsigned char composite[1500];

__attribute__((noreturn, force_align_arg_pointer)) void _start(void) {
    for (int i = 0; i < 400; i++) numbers[i] = (int)(next() >> 8);
    quicksort(numbers, 0, 399);
    unsigned sum = 0;
    for (int i = 0; i < 400; i++) sum = sum * 31 + (unsigned)numbers[i];
    print(sum);
    print((unsigned)sieve(composite, 1500));
    print((unsigned)fib(13));
    int value = 1;
    for (int i = 0; i < 500; i++) value = table[(unsigned)value % 4](value) & 0xffff;
    print((unsigned)value);
    call(231, value & 0x7f, 0, 0);
    __builtin_unreachable();
}
