// A 3x3 convolution, and the gradient of its input, for images in channels_last, with a padding of 1 and a stride of 1,
// by Winograd's minimal filtering: Lavin & Gray 2016 (1509.09308), F(4x4, 3x3).
//
// convolution.py calls it. A tile of 4x4 outputs sees 6x6 inputs d. With the matrices B, G and A of that paper it is
// At [(G g Gt) * (Bt d B)] A for one input and one output channel: 36 products instead of 144. The sum over the input
// channels comes before A, so that for each of the 36 places the channels of many tiles are one matrix product. Blocks
// of TILES tiles stay in the second cache. No bit depends on how many threads share the blocks.

#include <stdint.h>
#include <string.h>

namespace {

typedef float vec __attribute__((vector_size(32), aligned(4)));  // 8 floats
const int64_t VEC = 8, TILES = 12, PLACES = 36;

// Bt d
void to_places(const vec *d, vec *t) {
    const vec even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], outer = d[4] - d[2], twice = 2 * (d[3] - d[1]);
    t[0] = 4 * d[0] - 5 * d[2] + d[4];
    t[1] = even + odd, t[2] = even - odd;
    t[3] = outer + twice, t[4] = outer - twice;
    t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

// G g
void weights_to_places(const vec *g, vec *t) {
    const vec sixth = (g[0] + g[2]) / -6, middle = g[1] / 6, far = g[0] / 24 + g[2] / 6, half = g[1] / 12;
    t[0] = g[0] / 4;
    t[1] = sixth - middle, t[2] = sixth + middle;
    t[3] = far + half, t[4] = far - half;
    t[5] = g[2];
}

// At m
void to_outputs(const vec *m, vec *y) {
    const vec sum = m[1] + m[2], difference = m[1] - m[2], far = m[3] + m[4], apart = m[3] - m[4];
    y[0] = m[0] + sum + far, y[1] = difference + 2 * apart;
    y[2] = sum + 4 * far, y[3] = difference + 8 * apart + m[5];
}

// The weights at their places, 36 C K, from K 3 3 C; turned, 36 K C, with the taps in reverse order.
void place_weights(const float *w, float *u, int64_t C, int64_t K, int turned, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < K; k++)
        for (int64_t c = 0; c < C; c += VEC) {
            vec t[3][6];
            for (int64_t j = 0; j < 3; j++) {
                vec g[3];
                for (int64_t i = 0; i < 3; i++) g[i] = *(const vec *)(w + (k * 9 + (turned ? 8 - 3 * i - j : 3 * i + j)) * C + c);
                weights_to_places(g, t[j]);
            }
            for (int64_t i = 0; i < 6; i++) {
                const vec g[3] = {t[0][i], t[1][i], t[2][i]};
                vec r[6];
                weights_to_places(g, r);
                for (int64_t j = 0; j < 6; j++) {
                    float *place = u + (6 * i + j) * C * K;
                    if (turned) *(vec *)(place + k * C + c) = r[j];
                    else
                        for (int64_t n = 0; n < VEC; n++) place[(c + n) * K + k] = r[j][n];
                }
            }
        }
}

// One column of six rows, x of W columns; beyond them there is padding.
void column(const float *const *rows, const int64_t *steps, int64_t x, int64_t W, vec *t) {
    vec d[6] = {};
    if (x >= 0 && x < W)
        for (int i = 0; i < 6; i++) d[i] = *(const vec *)(rows[i] + x * steps[i]);
    to_places(d, t);
}

// Put tiles that stand side by side, the first from column `left` on, at their places, which are `apart` in v.
void place_inputs(const float *const *rows, const int64_t *steps, float *v, int64_t W, int64_t C, int64_t left,
                  int64_t tiles, int64_t apart) {
    for (int64_t c = 0; c < C; c += VEC) {
        vec t[6][6];  // column, row
        const float *own[6];
        for (int i = 0; i < 6; i++) own[i] = rows[i] + c;
        column(own, steps, left, W, t[0]);
        column(own, steps, left + 1, W, t[1]);
        for (int64_t n = 0; n < tiles; n++) {
            for (int j = 2; j < 6; j++) column(own, steps, left + 4 * n + j, W, t[j]);
            for (int i = 0; i < 6; i++) {
                const vec d[6] = {t[0][i], t[1][i], t[2][i], t[3][i], t[4][i], t[5][i]};
                vec e[6];
                to_places(d, e);
                for (int j = 0; j < 6; j++) *(vec *)(v + (6 * i + j) * apart + n * C + c) = e[j];
                t[0][i] = d[4], t[1][i] = d[5];  // which the next tile sees, too
            }
        }
    }
}

// m (M K) = v (M C) times u (C K), K a multiple of 16.
template <int M>
void product(const float *v, const float *u, float *m, int64_t C, int64_t K) {
    for (int64_t k = 0; k < K; k += 2 * VEC) {
        vec low[M] = {}, high[M] = {};
        const float *b = u + k;
        for (int64_t c = 0; c < C; c++, b += K) {
            const vec first = *(const vec *)b, second = *(const vec *)(b + VEC);
#pragma GCC unroll 6
            for (int i = 0; i < M; i++) low[i] += v[i * C + c] * first, high[i] += v[i * C + c] * second;
        }
        for (int i = 0; i < M; i++) *(vec *)(m + i * K + k) = low[i], *(vec *)(m + i * K + k + VEC) = high[i];
    }
}

// Write the outputs of tiles that stand side by side, the first at (top, left) of y, H W K.
void write_outputs(const float *m, float *y, int64_t H, int64_t W, int64_t K, int64_t top, int64_t left, int64_t tiles,
                   int64_t apart) {
    const int64_t high = H - top < 4 ? H - top : 4;
    for (int64_t n = 0; n < tiles; n++, left += 4) {
        const int64_t wide = W - left < 4 ? W - left : 4;
        for (int64_t k = 0; k < K; k += VEC) {
            vec t[6][4];  // column, row
            for (int j = 0; j < 6; j++) {
                vec d[6];
                for (int i = 0; i < 6; i++) d[i] = *(const vec *)(m + (6 * i + j) * apart + n * K + k);
                to_outputs(d, t[j]);
            }
            for (int64_t i = 0; i < high; i++) {
                const vec d[6] = {t[0][i], t[1][i], t[2][i], t[3][i], t[4][i], t[5][i]};
                vec e[4];
                to_outputs(d, e);
                for (int64_t j = 0; j < wide; j++) *(vec *)(y + ((top + i) * W + left + j) * K + k) = e[j];
            }
        }
    }
}

}  // namespace

extern "C" {

// The floats that `winograd` needs for its work.
int64_t winograd_space(int64_t C, int64_t K, int threads) {
    return PLACES * C * K + threads * (PLACES * TILES * (C + K) + C);
}

// y (N H W K) from x (N H W C) and w (K 3 3 C); turned, the gradient of the input from that of the output: y from x and
// w (C 3 3 K). C and K are multiples of 16.
void winograd(const float *x, const float *w, float *y, float *space, int64_t N, int64_t H, int64_t W, int64_t C,
              int64_t K, int turned, int threads) {
    const int64_t rows = (H + 3) / 4, cols = (W + 3) / 4, tiles = N * rows * cols, blocks = (tiles + TILES - 1) / TILES;
    float *u = space, *own = space + PLACES * C * K;
    if (turned) place_weights(w, u, K, C, 1, threads);
    else place_weights(w, u, C, K, 0, threads);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t share = 0; share < threads; share++) {
        float *v = own + share * (PLACES * TILES * (C + K) + C), *m = v + PLACES * TILES * C, *padding = m + PLACES * TILES * K;
        memset(padding, 0, C * sizeof(float));
        for (int64_t block = blocks * share / threads; block < blocks * (share + 1) / threads; block++) {
            const int64_t first = block * TILES, some = first + TILES < tiles ? TILES : tiles - first;
            for (int64_t t = 0, beside; t < some; t += beside) {
                const int64_t n = (first + t) / (rows * cols), row = (first + t) / cols % rows, col = (first + t) % cols;
                beside = cols - col < some - t ? cols - col : some - t;
                const float *seen[6];
                int64_t steps[6];
                for (int64_t i = 0; i < 6; i++) {
                    const int64_t at = 4 * row - 1 + i;
                    const bool inside = at >= 0 && at < H;
                    seen[i] = inside ? x + (n * H + at) * W * C : padding, steps[i] = inside ? C : 0;
                }
                place_inputs(seen, steps, v + t * C, W, C, 4 * col - 1, beside, TILES * C);
            }
            for (int64_t p = 0; p < PLACES; p++) {
                const float *a = v + p * TILES * C, *b = u + p * C * K;
                float *sums = m + p * TILES * K;
                int64_t t = 0;
                for (; t + 6 <= some; t += 6) product<6>(a + t * C, b, sums + t * K, C, K);
                for (; t < some; t++) product<1>(a + t * C, b, sums + t * K, C, K);
            }
            for (int64_t t = 0, beside; t < some; t += beside) {
                const int64_t n = (first + t) / (rows * cols), row = (first + t) / cols % rows, col = (first + t) % cols;
                beside = cols - col < some - t ? cols - col : some - t;
                write_outputs(m + t * K, y + n * H * W * K, H, W, K, 4 * row, 4 * col, beside, TILES * K);
            }
        }
    }
}
}
