// The gradient of a 3x3 convolution's weights, for images in channels_last: dw[k, i, j, c], the sum over all positions
// of x[y + i - 1, x + j - 1, c] dy[y, x, k], with a padding of 1 and a stride of 1.
//
// convolution.py calls it. A block of 6 by 16 sums stays in registers while positions pass by, which is as many as
// AVX2 has; images are taken in bands of rows that fit into the first cache. Bands are summed by themselves, which
// keeps more digits than one long sum, and so are groups of images, so that no bit depends on how many threads share
// the work.

#include <stdint.h>
#include <string.h>

namespace {

typedef float vec __attribute__((vector_size(32), aligned(4)));  // 8 floats
const int64_t WIDTH = 16;                                        // output channels of a block, two vectors
const int64_t CACHE = 32 * 1024;                                 // bytes

// Add to M rows of sums, K apart, what so many rows and columns of positions give.
template <int M>
void block(const float *x, const float *dy, float *sums, int64_t C, int64_t K, int64_t row, int64_t rows,
           int64_t cols) {
    vec low[M] = {}, high[M] = {};
    for (int64_t r = 0; r < rows; r++) {
        const float *a = x + r * row * C, *b = dy + r * row * K;
        for (int64_t i = 0; i < cols; i++, a += C, b += K) {
            const vec first = *(const vec *)b, second = *(const vec *)(b + 8);
#pragma GCC unroll 6
            for (int m = 0; m < M; m++) low[m] += a[m] * first, high[m] += a[m] * second;
        }
    }
    for (int m = 0; m < M; m++) *(vec *)(sums + m * K) += low[m], *(vec *)(sums + m * K + 8) += high[m];
}

// Add to sums (3, 3, C, K), of WIDTH output channels, what the rows y0 to y1 of an image's dy give.
void add_band(const float *x, const float *dy, float *sums, int64_t H, int64_t W, int64_t C, int64_t K, int64_t y0,
              int64_t y1) {
    for (int64_t i = 0; i < 3; i++) {
        const int64_t first = y0 + i < 1 ? 1 : y0, last = y1 + i - 1 > H ? H + 1 - i : y1;  // beyond x there is padding
        for (int64_t j = 0; j < 3; j++) {
            const int64_t left = j == 0, cols = W - (j != 1);
            const float *a = x + ((first + i - 1) * W + left + j - 1) * C, *b = dy + (first * W + left) * K;
            float *own = sums + (i * 3 + j) * C * K;
            int64_t c = 0;
            for (; c + 6 <= C; c += 6) block<6>(a + c, b, own + c * K, C, K, W, last - first, cols);
            for (; c + 4 <= C; c += 4) block<4>(a + c, b, own + c * K, C, K, W, last - first, cols);
            for (; c < C; c++) block<1>(a + c, b, own + c * K, C, K, W, last - first, cols);
        }
    }
}

}  // namespace

extern "C" {

// x: N H W C; dy: N H W K, K a multiple of 16; dw: K 3 3 C; sums: groups 3 3 C K.
void weight_gradient(const float *x, const float *dy, float *dw, float *sums, int64_t N, int64_t H, int64_t W,
                     int64_t C, int64_t K, int64_t groups, int threads) {
    const int64_t size = 9 * C * K, blocks = K / WIDTH;
    const int64_t fitting = (CACHE / (int64_t)sizeof(float) / W - 2 * C) / (C + WIDTH);  // rows of x and dy
    const int64_t band = fitting < 1 ? 1 : fitting;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t task = 0; task < groups * blocks; task++) {
        const int64_t g = task / blocks, k = task % blocks * WIDTH;
        float *own = sums + g * size + k;
        for (int64_t i = 0; i < 9 * C; i++) memset(own + i * K, 0, WIDTH * sizeof(float));
        for (int64_t n = N * g / groups; n < N * (g + 1) / groups; n++)
            for (int64_t y = 0; y < H; y += band)
                add_band(x + n * H * W * C, dy + n * H * W * K + k, own, H, W, C, K, y, y + band < H ? y + band : H);
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < K; k++)
        for (int64_t i = 0; i < 9 * C; i++) {
            float sum = 0;
            for (int64_t g = 0; g < groups; g++) sum += sums[g * size + i * K + k];
            dw[k * 9 * C + i] = sum;
        }
}
}
