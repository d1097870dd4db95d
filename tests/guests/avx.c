/* Uses AVX2 without asking whether the processor has it. */
#include <immintrin.h>
#include <stdio.h>

int main(int argc, char **argv) {
    (void)argv;
    __m256i v = _mm256_add_epi32(_mm256_set1_epi32(argc), _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 8));
    int lanes[8];
    _mm256_storeu_si256((__m256i *)lanes, v);
    printf("%d\n", lanes[7]);
    return 0;
}
