/* Floating point in vectors: products of matrices, and a mask that stays in the widest registers over calls never made before.
 * Compiled for AVX2, or for AVX-512. argv[1] scales it: a round is a product of two matrices, argv[2] wide (256). */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>

#define WIDEST 256
static float a[WIDEST][WIDEST], b[WIDEST][WIDEST], c[WIDEST][WIDEST];

#ifdef __AVX512F__
typedef __m512 vector;
#define LANES 16
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define SAME _mm512_set1_ps
#define FMA _mm512_fmadd_ps
#else
typedef __m256 vector;
#define LANES 8
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define SAME _mm256_set1_ps
#define FMA _mm256_fmadd_ps
#endif

static void multiply(int n) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j += LANES) {
            vector sum = SAME(0);
            for (int k = 0; k < n; k++) sum = FMA(SAME(a[i][k]), LOAD(&b[k][j]), sum);
            STORE(&c[i][j], sum);
        }
}

/* Code that runs for the first time while registers that no call keeps are in use. */
#define FRESH(n) __asm__ volatile("jmp 1f\n 2: inc %0\n jmp 3f\n 1: dec %0\n jmp 2b\n 3:" : "+r"(count) : : "cc");
static unsigned keep(void) {
    long count = 0;
    unsigned found = 0;
#ifdef __AVX512F__
    unsigned words[16];
    for (int i = 0; i < 16; i++) words[i] = 0x1010101u * i;
    __asm__ volatile("vmovdqu32 %0, %%zmm17\n vmovdqu32 %0, %%zmm31\n vmovdqu32 %0, %%zmm3\n kmovw %1, %%k3"
                     : : "m"(words), "r"(0x5A5A) : "xmm17", "xmm31", "xmm3", "k3");
    FRESH(1) FRESH(2) FRESH(3) FRESH(4)
    unsigned mask;
    for (int i = 0; i < 3; i++) {
        unsigned got[16];
        if (i == 0) __asm__ volatile("vmovdqu32 %%zmm17, %0" : "=m"(got));
        if (i == 1) __asm__ volatile("vmovdqu32 %%zmm31, %0" : "=m"(got));
        if (i == 2) __asm__ volatile("vmovdqu32 %%zmm3, %0" : "=m"(got));
        for (int k = 0; k < 16; k++) found += got[k] == words[k];
    }
    __asm__ volatile("kmovw %%k3, %0" : "=r"(mask));
    found += mask == 0x5A5A;
#else
    unsigned words[8], got[8];
    for (int i = 0; i < 8; i++) words[i] = 0x1010101u * i;
    __asm__ volatile("vmovdqu %0, %%ymm3\n vmovdqu %0, %%ymm13" : : "m"(words) : "xmm3", "xmm13");
    FRESH(1) FRESH(2) FRESH(3) FRESH(4)
    __asm__ volatile("vmovdqu %%ymm3, %0" : "=m"(got));
    for (int k = 0; k < 8; k++) found += got[k] == words[k];
    __asm__ volatile("vmovdqu %%ymm13, %0" : "=m"(got));
    for (int k = 0; k < 8; k++) found += got[k] == words[k];
#endif
    return found + (unsigned)count;
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 1, n = argc > 2 ? atoi(argv[2]) : WIDEST;
    unsigned kept = keep();
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) a[i][j] = (float)((i * 7 + j) % 13), b[i][j] = (float)((i + j * 5) % 11);
    double sum = 0;
    for (int round = 0; round < rounds; round++) {
        multiply(n);
        a[round % n][0] += 1;
        sum += c[round % n][(round * 3) % n];
    }
    printf("%u %.0f\n", kept, sum);
    return 23;
}
