// Batch norm with the sum and the ReLU behind it, in as few passes over memory as the equations allow.
//
// fusing.py calls it. A feature map is N images of P positions of C channels, one after another as channels_last lays
// them out. Sums are made image by image and then over the images, so no bit depends on how many threads share the work.
// A pass takes the images in the opposite order of the one before it, since the last ones are still in the cache.

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace {

typedef uint16_t bfloat16;  // the upper half of a float

inline float get(const float *p) { return *p; }

inline float get(const bfloat16 *p) {
    uint32_t bits = (uint32_t)*p << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline void put(float *p, float value) { *p = value; }

inline void put(bfloat16 *p, float value) {  // rounded to the nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *p = value == value ? rounded : 0x7fc0;
}

inline float middle(float a, float b, float c) {
    float low = a < b ? a : b, high = a < b ? b : a, rest = high < c ? high : c;
    return low > rest ? low : rest;
}

// For each channel, the sums over an image's positions of (x - near) and of its square, near being the middle one of
// three values: it is near enough to the mean for float32, and one far value among them can't move it. B channels at a
// time stay in registers.
template <int B, typename T>
void deviations(const T *x, int64_t positions, int64_t channels, float *nears, float *sums, float *squares) {
    float near[B], sum[B] = {0}, square[B] = {0};
    const T *a = x + positions / 3 * channels, *b = x + positions / 2 * channels, *c = x + 2 * positions / 3 * channels;
    for (int j = 0; j < B; j++) near[j] = middle(get(a + j), get(b + j), get(c + j));
    for (int64_t i = 0; i < positions; i++) {
        const T *row = x + i * channels;
#pragma omp simd
        for (int j = 0; j < B; j++) {
            float d = get(row + j) - near[j];
            sum[j] += d;
            square[j] += d * d;
        }
    }
    for (int j = 0; j < B; j++) nears[j] = near[j], sums[j] = sum[j], squares[j] = square[j];
}

// For each channel, the sums over an image's positions of g and g (x - mean), where g is what dy becomes behind the
// ReLU: dy where it let something through, else 0. What it let through is seen from y, or computed again from x; with
// y, g is also written, as it is the shortcut's gradient too.
enum Gate { NONE, FROM_X, FROM_Y };

template <int B, Gate gate, typename T>
void products(const T *dy, const T *x, const T *y, T *g, int64_t positions, int64_t channels, const float *mean,
              const float *scale, const float *shift, float *sums, float *dots) {
    float m[B], a[B], b[B], sum[B] = {0}, dot[B] = {0};
    for (int j = 0; j < B; j++) m[j] = mean[j], a[j] = scale[j], b[j] = shift[j];
    for (int64_t i = 0; i < positions; i++) {
        const int64_t at = i * channels;
#pragma omp simd
        for (int j = 0; j < B; j++) {
            float v = get(x + at + j), d = get(dy + at + j);
            if (gate == FROM_X) d = v * a[j] + b[j] > 0 ? d : 0;
            if (gate == FROM_Y) {
                d = get(y + at + j) > 0 ? d : 0;
                put(g + at + j, d);
            }
            sum[j] += d;
            dot[j] += d * (v - m[j]);
        }
    }
    for (int j = 0; j < B; j++) sums[j] = sum[j], dots[j] = dot[j];
}

// Call f with blocks of channels: 32 as long as there are so many, then 16, then 8, then one.
template <typename F>
void in_blocks(int64_t channels, F f) {
    int64_t c = 0;
    for (; c + 32 <= channels; c += 32) f.template block<32>(c);
    for (; c + 16 <= channels; c += 16) f.template block<16>(c);
    for (; c + 8 <= channels; c += 8) f.template block<8>(c);
    for (; c < channels; c++) f.template block<1>(c);
}

template <typename T>
struct Deviations {
    const T *x;
    int64_t positions, channels;
    float *nears, *sums, *squares;
    template <int B>
    void block(int64_t c) {
        deviations<B>(x + c, positions, channels, nears + c, sums + c, squares + c);
    }
};

template <Gate gate, typename T>
struct Products {
    const T *dy, *x, *y;
    T *g;
    int64_t positions, channels;
    const float *mean, *scale, *shift;
    float *sums, *dots;
    template <int B>
    void block(int64_t c) {
        products<B, gate>(dy + c, x + c, y ? y + c : y, g ? g + c : g, positions, channels, mean + c, scale + c,
                          shift + c, sums + c, dots + c);
    }
};

template <bool adds, bool relu, typename T>
void transform(const T *x, const T *h, T *y, int64_t positions, int64_t channels, const float *scale,
               const float *shift) {
    for (int64_t i = 0; i < positions; i++) {
        const int64_t at = i * channels;
#pragma omp simd
        for (int64_t j = 0; j < channels; j++) {
            float v = get(x + at + j) * scale[j] + shift[j];
            if (adds) v += get(h + at + j);
            if (relu) v = v < 0 ? 0 : v;  // NaN stays
            put(y + at + j, v);
        }
    }
}

template <bool from_x, typename T>
void gradient(const T *g, const T *x, T *dx, int64_t positions, int64_t channels, const float *scale,
              const float *shift, const float *a, const float *b) {
    for (int64_t i = 0; i < positions; i++) {
        const int64_t at = i * channels;
#pragma omp simd
        for (int64_t j = 0; j < channels; j++) {
            float v = get(x + at + j), d = get(g + at + j);
            if (from_x) d = v * scale[j] + shift[j] > 0 ? d : 0;
            put(dx + at + j, d * scale[j] + v * a[j] + b[j]);
        }
    }
}

// y from x with a known scale and shift, from the last image to the first.
template <typename T>
void apply(const T *x, const T *h, T *y, bool relu, const float *scale, const float *shift, int64_t images,
           int64_t positions, int64_t channels, int threads) {
    const int64_t map = positions * channels;
    auto f = h ? (relu ? transform<true, true, T> : transform<true, false, T>)
               : (relu ? transform<false, true, T> : transform<false, false, T>);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < images; k++) {
        const int64_t at = (images - 1 - k) * map;
        f(x + at, h ? h + at : h, y + at, positions, channels, scale, shift);
    }
}

template <typename T>
void forward(const T *x, const T *h, T *y, bool relu, const float *weight, const float *bias, float eps, float *mean,
             float *var, float *inverse, float *scale, float *shift, float *work, int64_t images, int64_t positions,
             int64_t channels, int threads) {
    const int64_t map = positions * channels;
    float *nears = work, *sums = nears + images * channels, *squares = sums + images * channels;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < images; n++) {
        const int64_t at = n * channels;
        in_blocks(channels, Deviations<T>{x + n * map, positions, channels, nears + at, sums + at, squares + at});
    }
    for (int64_t c = 0; c < channels; c++) {  // the images' means and squares are joined (Chan et al. 1979, eq. 2.1)
        double total = 0, within = 0, between = 0;
        for (int64_t n = 0; n < images; n++) {
            double sum = sums[n * channels + c];
            total += nears[n * channels + c] + sum / positions;
            within += squares[n * channels + c] - sum * sum / positions;
        }
        const double average = total / images;
        for (int64_t n = 0; n < images; n++) {
            double d = nears[n * channels + c] + (double)sums[n * channels + c] / positions - average;
            between += d * d;
        }
        const double variance = within / positions / images + between / images;
        mean[c] = average;
        var[c] = variance < 0 ? 0 : variance;
        inverse[c] = 1 / sqrt(var[c] + (double)eps);
        scale[c] = weight[c] * inverse[c];
        shift[c] = bias[c] - average * scale[c];
    }
    apply(x, h, y, relu, scale, shift, images, positions, channels, threads);
}

template <Gate gate, typename T>
void backward(const T *dy, const T *x, const T *y, T *g, T *dx, const float *mean, const float *inverse,
              const float *scale, const float *shift, float *dweight, float *dbias, float *work, int64_t images,
              int64_t positions, int64_t channels, int threads) {
    const int64_t map = positions * channels;
    float *sums = work, *dots = work + images * channels;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < images; n++) {
        const int64_t at = n * map;
        in_blocks(channels, Products<gate, T>{dy + at, x + at, y ? y + at : y, g ? g + at : g, positions, channels, mean,
                                              scale, shift, sums + n * channels, dots + n * channels});
    }
    float *a = work, *b = work + channels;  // over sums that are used up
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, dot = 0;
        for (int64_t n = 0; n < images; n++) sum += sums[n * channels + c], dot += dots[n * channels + c];
        dbias[c] = sum;
        dweight[c] = dot * inverse[c];
    }
    const double count = (double)images * positions;
    for (int64_t c = 0; c < channels; c++) {
        const double slope = -(double)scale[c] * inverse[c] * dweight[c] / count;
        a[c] = slope;
        b[c] = -(double)scale[c] * dbias[c] / count - slope * mean[c];
    }
    const T *from = g ? g : dy;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < images; k++) {
        const int64_t at = (images - 1 - k) * map;
        gradient<gate == FROM_X>(from + at, x + at, dx + at, positions, channels, scale, shift, a, b);
    }
}

template <typename T>
void backward_of(const void *dy, const void *x, const void *y, void *g, void *dx, bool relu, const float *mean,
                 const float *inverse, const float *scale, const float *shift, float *dweight, float *dbias, float *work,
                 int64_t images, int64_t positions, int64_t channels, int threads) {
    auto f = y ? backward<FROM_Y, T> : relu ? backward<FROM_X, T> : backward<NONE, T>;
    f((const T *)dy, (const T *)x, (const T *)y, (T *)g, (T *)dx, mean, inverse, scale, shift, dweight, dbias, work,
      images, positions, channels, threads);
}

}  // namespace

extern "C" {

// y = relu(h + x·scale + shift), h and the ReLU where asked for; work: 3·N·C floats.
void norm_forward(int half, int relu, const void *x, const void *h, void *y, const float *weight, const float *bias,
                  float eps, float *mean, float *var, float *inverse, float *scale, float *shift, float *work,
                  int64_t images, int64_t positions, int64_t channels, int threads) {
    if (half)
        forward((const bfloat16 *)x, (const bfloat16 *)h, (bfloat16 *)y, relu, weight, bias, eps, mean, var, inverse,
                scale, shift, work, images, positions, channels, threads);
    else
        forward((const float *)x, (const float *)h, (float *)y, relu, weight, bias, eps, mean, var, inverse, scale,
                shift, work, images, positions, channels, threads);
}

// The same with the scale and shift of statistics that are known; y may be x.
void norm_apply(int half, int relu, const void *x, const void *h, void *y, const float *scale, const float *shift,
                int64_t images, int64_t positions, int64_t channels, int threads) {
    if (half)
        apply((const bfloat16 *)x, (const bfloat16 *)h, (bfloat16 *)y, relu, scale, shift, images, positions, channels,
              threads);
    else
        apply((const float *)x, (const float *)h, (float *)y, relu, scale, shift, images, positions, channels, threads);
}

// From dy: dx, the gradients of weight and bias and, given y of a sum, g: the gradient of the shortcut.
void norm_backward(int half, int relu, const void *dy, const void *x, const void *y, void *g, void *dx,
                   const float *mean, const float *inverse, const float *scale, const float *shift, float *dweight,
                   float *dbias, float *work, int64_t images, int64_t positions, int64_t channels, int threads) {
    auto f = half ? backward_of<bfloat16> : backward_of<float>;
    f(dy, x, y, g, dx, relu, mean, inverse, scale, shift, dweight, dbias, work, images, positions, channels, threads);
}
}
