// The arithmetic of LayerNorm on the SFPU, in float32, over tiles that lie in Dest.
//
// A Dest tile is 32 vectors of 32 lanes. Vector v holds four rows of eight columns of a 16x16 face: face v / 8,
// rows 4 * (v % 8 / 2) and following, even columns where v is even and odd columns where it is odd. Lane l is row
// l / 8, column 2 * (l % 8) of that; vConstTileId reads 2 * l in lane l.
//
// The vectors that share one mean and one variance are a group:
//   flat     a tile is 1,024 consecutive elements of one row: one group of 32 vectors, all lanes one row.
//   tilized  a tile is 32 columns of 32 rows: eight groups of four vectors, each row in eight lanes.
// A group's statistics are vectors, every lane holding its row's value, in a statistics tile for each four groups.
//
// Both ways add the same numbers in the same order, so that a row's result does not depend on how many rows there
// are: element e of a row goes to partial sum e / 16 % 4, e / 2 % 8. Flat, these are the 4 x 8 lanes of one vector;
// tilized, they are the eight lanes of four vectors, two of which (the faces) belong to even tiles and two to odd.
#pragma once

#include <cstdint>

#include "sfpi.h"

namespace layernorm {

using namespace sfpi;

constexpr uint32_t tile_vectors = 32;
constexpr uint32_t x_base = 0 * tile_vectors, gamma_base = 1 * tile_vectors, beta_base = 2 * tile_vectors;
// While statistics are made, gamma's place holds the sums, and the last two tiles the statistics.
constexpr uint32_t sums_base = 1 * tile_vectors, statistics_base = 2 * tile_vectors;
// When they are used, one statistics tile at a time is in the last.
constexpr uint32_t loaded_statistics_base = 3 * tile_vectors;

enum Statistic : uint32_t { inverse_std, mean, statistics };

template <bool tilized>
struct Groups {
    static constexpr uint32_t count = tilized ? 8 : 1;
    static constexpr uint32_t size = tile_vectors / count;
    static constexpr uint32_t chains = tilized ? 4 : 1;         // vectors of partial sums
    static constexpr uint32_t per_tile = tilized ? 4 : 1;       // groups of one statistics tile
    static constexpr uint32_t tiles = count / per_tile;         // statistics tiles
    static constexpr uint32_t part = statistics * per_tile;     // vectors from one part of a statistic to the next
    static constexpr uint32_t vector(uint32_t group, uint32_t i) {
        return tilized ? group / 4 * 16 + i / 2 * 8 + group % 4 * 2 + i % 2 : i;
    }
    static constexpr uint32_t sum(uint32_t group, uint32_t chain) { return sums_base + group * chains + chain; }
    static constexpr uint32_t within_tile(uint32_t group, Statistic s) { return s * per_tile + group % per_tile; }
    static constexpr uint32_t statistic(uint32_t group, Statistic s) {
        return statistics_base + group / per_tile * tile_vectors + within_tile(group, s);
    }
};

sfpi_inline vFloat scalar(uint32_t bits) { return as<vFloat>(vUInt(bits)); }

// Moves each of a row's eight lanes on by one, the last to the front.
sfpi_inline vFloat rotate(vFloat v) { return vFloat(subvec_shflror1(v)); }

// How many columns (flat: elements) each lane of `vector` lies before the end of the tile's `valid` ones.
template <bool tilized>
sfpi_inline vInt columns_left(uint32_t vector, int valid) {
    const int first = tilized ? vector / 8 % 2 * 16 + vector % 2 : vector / 2 * 64 + vector % 2;
    vInt column = vConstTileId;
    if constexpr (tilized) {
        column = column & 15;
    }
    return vInt(valid - first) - column;
}

// Sets every lane to the sum of its row's partial sums. Float32 addition commutes, so each rotation adds the same
// pairs in every lane, and all lanes agree to the bit.
template <bool tilized>
sfpi_inline vFloat total(uint32_t group) {
    using G = Groups<tilized>;
    vFloat a = dst_reg[G::sum(group, 0)];
    vFloat b = dst_reg[G::sum(group, tilized ? 1 : 0)];
    vFloat c = dst_reg[G::sum(group, tilized ? 2 : 0)];
    vFloat d = dst_reg[G::sum(group, tilized ? 3 : 0)];
    if constexpr (!tilized) {
        subvec_transp(a, b, c, d);  // of four equal vectors: makes each row of lanes a vector
    }
    vFloat sum = (a + b) + (c + d);
    sum = sum + rotate(rotate(rotate(rotate(sum))));
    sum = sum + rotate(rotate(sum));
    return sum + rotate(sum);
}

template <bool tilized>
void clear_sums() {
    using G = Groups<tilized>;
#pragma GCC unroll 32
    for (uint32_t i = 0; i < G::count * G::chains; ++i) {
        dst_reg[sums_base + i] = 0.0f;
    }
}

// Adds the tile's x, (x - mean)^2 or x^2 to the partial sums.
template <bool tilized, bool odd_tile, bool masked, Summand summand>
void add_tile(int valid) {
    using G = Groups<tilized>;
    constexpr uint32_t length = tilized ? 2 : G::size;  // vectors of this tile that go to one chain
#pragma GCC unroll 8
    for (uint32_t g = 0; g < G::count; ++g) {
#pragma GCC unroll 2
        for (uint32_t face = 0; face < G::size / length; ++face) {
            const uint32_t chain = tilized ? 2 * odd_tile + face : 0;
            vFloat sum = dst_reg[G::sum(g, chain)];
#pragma GCC unroll 32
            for (uint32_t i = 0; i < length; ++i) {
                const uint32_t vector = G::vector(g, face * length + i);
                vFloat x = dst_reg[x_base + vector];
                if constexpr (summand == Summand::squared_deviation) {
                    x = x - dst_reg[G::statistic(g, mean)];
                }
                if constexpr (masked) {  // both times: padding minus the mean is not zero
                    v_if(columns_left<tilized>(vector, valid) <= 0) { x = 0.0f; }
                    v_endif;
                }
                if constexpr (summand == Summand::x) {
                    sum = sum + x;
                } else {
                    sum = x * x + sum;
                }
            }
            dst_reg[G::sum(g, chain)] = sum;
        }
    }
}

// mean = sum / W. The product with a rounded 1 / W can be off by an ULP, which a constant row of 1e4 with eps 1e-6
// would show as a deviation of order one: a Newton step on the residual makes it a division.
template <bool tilized>
void finish_mean(uint32_t width, uint32_t inverse_width) {
    using G = Groups<tilized>;
#pragma GCC unroll 8
    for (uint32_t g = 0; g < G::count; ++g) {
        vFloat sum = total<tilized>(g);
        vFloat quotient = sum * scalar(inverse_width);
        vFloat residual = sum - quotient * scalar(width);
        dst_reg[G::statistic(g, mean)] = residual * scalar(inverse_width) + quotient;
    }
}

template <bool tilized>
void clear_mean() {
    using G = Groups<tilized>;
#pragma GCC unroll 8
    for (uint32_t g = 0; g < G::count; ++g) {
        dst_reg[G::statistic(g, mean)] = 0.0f;
    }
}

// variance + eps, in the place of 1 / std
template <bool tilized>
void finish_variance(uint32_t inverse_width, uint32_t epsilon) {
    using G = Groups<tilized>;
#pragma GCC unroll 8
    for (uint32_t g = 0; g < G::count; ++g) {
        vFloat variance = total<tilized>(g) * scalar(inverse_width);
        if constexpr (tap != Tap::variance) {
            variance = variance + scalar(epsilon);
        }
        dst_reg[G::statistic(g, inverse_std)] = variance;
    }
}

// Writes each statistic as a sum of three bfloat16, which hold its 24 bits exactly: they go through L1 and SrcA,
// which would take bits off a float32.
template <bool tilized>
void split_statistics() {
    using G = Groups<tilized>;
#pragma GCC unroll 2
    for (uint32_t tile = 0; tile < G::tiles; ++tile) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < G::part; ++i) {
            const uint32_t vector = statistics_base + tile * tile_vectors + i;
            vFloat value = dst_reg[vector];
            vFloat high = convert<vFloat16b>(value, RoundMode::Nearest);
            value = value - high;
            vFloat middle = convert<vFloat16b>(value, RoundMode::Nearest);
            dst_reg[vector] = high;
            dst_reg[vector + G::part] = middle;
            dst_reg[vector + 2 * G::part] = value - middle;
        }
    }
}

template <bool tilized>
sfpi_inline vFloat loaded_statistic(uint32_t group, Statistic s) {
    using G = Groups<tilized>;
    const uint32_t vector = loaded_statistics_base + G::within_tile(group, s);
    vFloat high = dst_reg[vector];
    vFloat middle = dst_reg[vector + G::part];
    vFloat low = dst_reg[vector + 2 * G::part];
    return (high + middle) + low;
}

// x -> (x - mean) / std * gamma + beta, for the groups of one statistics tile
template <bool tilized, bool subtract_mean, bool has_gamma, bool round_before_gamma, bool has_beta,
          uint32_t statistics_tile>
void normalize_groups() {
    using G = Groups<tilized>;
#pragma GCC unroll 4
    for (uint32_t i = 0; i < G::per_tile; ++i) {
        const uint32_t g = statistics_tile * G::per_tile + i;
        vFloat row_mean = loaded_statistic<tilized>(g, mean);
        vFloat row_inverse_std = loaded_statistic<tilized>(g, inverse_std);
#pragma GCC unroll 32
        for (uint32_t j = 0; j < G::size; ++j) {
            const uint32_t vector = G::vector(g, j);
            if constexpr (tap == Tap::none || tap == Tap::standardized || tap == Tap::scaled) {
                vFloat x = dst_reg[x_base + vector];
                if constexpr (subtract_mean) {
                    x = x - row_mean;
                }
                vFloat y = x * row_inverse_std;
                if constexpr (round_before_gamma) {
                    y = convert<vFloat16b>(y, RoundMode::Nearest);
                }
                if constexpr (has_gamma && tap != Tap::standardized) {
                    y = y * dst_reg[gamma_base + vector];
                }
                if constexpr (has_beta && tap == Tap::none) {
                    y = y + dst_reg[beta_base + vector];
                }
                dst_reg[x_base + vector] = y;
            } else if constexpr (tap == Tap::mean) {
                dst_reg[x_base + vector] = row_mean;
            } else if constexpr (tap == Tap::variance || tap == Tap::inverse_std) {
                dst_reg[x_base + vector] = row_inverse_std;
            }
        }
    }
}

}  // namespace layernorm
