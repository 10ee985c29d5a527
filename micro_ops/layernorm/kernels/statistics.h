// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// A group's statistics: from the sums of its rows, which the FPU made of bfloat16 and the SFPU makes of float32, to each
// row's mean and 1 / std.
#pragma once

#include "vectors.h"

namespace layernorm {

// What the math thread gets at run time; *_bits are of float32 values.
struct MathArguments {
    uint32_t divisor_bits;          // W, or 2 W where the sums are of 2 x
    uint32_t inverse_divisor_bits;  // 1 / divisor
    uint32_t epsilon_bits;
    uint32_t lane_count_bits;       // 4 * (W / 128)
    uint32_t lane_count_remainder;  // W % 128
    uint32_t last_piece_elements;   // of a row, without its padding
};

// The mean is sum / divisor. A product with the rounded 1 / divisor can be off by an ULP, which a constant row of 1e4
// with epsilon 1e-6 would show as a deviation of order one; a Newton step on the residual makes it a division.
template <class PartialSums>
sfpi_inline vFloat make_mean(PartialSums partial_sums) {
    vFloat sum = row_totals(partial_sums);
    vFloat quotient = sum * inverse_divisor;
    vFloat residual = sum + -quotient * divisor;
    vFloat mean = residual * inverse_divisor + quotient;
    dst_reg[mean_vector] = mean;
    return mean;
}

// The variance of bfloat16 rows, from the sums of 2 x and x^2. Each lane's sum of (x - pivot)^2 = x^2 - pivot * 2 x +
// pivot^2 is made first, the pivot being the mean rounded to bfloat16. Cancellation matters only if all elements of the
// row share an exponent; then they and the pivot are integers times a power of two, and the sums are exact. From their
// mean square (mean - pivot)^2 is subtracted, which is at most the variance: no element is nearer to the mean than the
// pivot is.
sfpi_inline vFloat make_variance() {
    vFloat mean = make_mean([](uint32_t row) __attribute__((always_inline)) {
        vFloat partial = load_sum(sum_vector(row));
        dst_reg[sum_vector(row)] = partial;
        return partial;
    });
    vFloat pivot = convert<vFloat16b>(mean, RoundMode::Nearest);
    store_rows(scale_vector(0), pivot);
    vFloat total = row_totals([](uint32_t row) __attribute__((always_inline)) {
        vFloat p = dst_reg[scale_vector(by_tiles ? 0 : row)];
        vFloat excess = p * vFloat(dst_reg[lane_count_vector(row)]) - vFloat(dst_reg[sum_vector(row)]);
        return p * excess + load_sum(square_sum_vector(row));
    });
    vFloat mean_again = dst_reg[mean_vector];
    vFloat offset = mean_again - convert<vFloat16b>(mean_again, RoundMode::Nearest);
    vFloat doubled = total + total;
    return -offset * offset + doubled * inverse_divisor;
}

// ---- float32 rows: the SFPU adds x up, and (x - mean)^2 in the next pass, into the first two vectors of the row's sums.

// x, or (x - mean)^2, of vector v of a row's piece, added to `sum`. Of a row's last piece (`masked`) only `elements`
// count: the padding is zero, but zero minus the mean is not.
template <bool squares, bool masked>
sfpi_inline vFloat add_vector(vFloat sum, vFloat x, vFloat mean, uint32_t v, int elements) {
    if constexpr (masked) {
        v_if(vInt(elements - first_element(v)) - vConstTileId <= 0) { x = mean; }
        v_endif;
    }
    if constexpr (squares && subtract_mean) {
        vFloat deviation = x - mean;
        return deviation * deviation + sum;
    } else if constexpr (squares) {
        return x * x + sum;
    } else {
        return sum + x;
    }
}

// Adds a row's piece to its sums, one of the even vectors and one of the odd ones.
template <bool squares, bool masked, uint32_t row, uint32_t v = 0>
sfpi_inline void add_piece(vFloat even, vFloat odd, vFloat mean, int elements) {
    if constexpr (v == piece_vectors) {
        set_dest_base(0);
        dst_reg[sum_vector(row)] = even;
        dst_reg[sum_vector(row) + 1] = odd;
    } else {
        vFloat x_even = dst_reg[row * piece_vectors + v];
        vFloat x_odd = dst_reg[row * piece_vectors + v + 1];
        vFloat next_even = add_vector<squares, masked>(even, x_even, mean, v, elements);
        vFloat next_odd = add_vector<squares, masked>(odd, x_odd, mean, v + 1, elements);
        add_piece<squares, masked, row, v + 2>(next_even, next_odd, mean, elements);
    }
}

// Adds a section's rows to their sums.
template <bool squares, bool masked, uint32_t row = 0>
sfpi_inline void add_section(uint32_t section, int elements) {
    if constexpr (row < group_rows) {
        set_dest_base(0);
        vFloat even = dst_reg[sum_vector(row)];
        vFloat odd = dst_reg[sum_vector(row) + 1];
        vFloat mean = load_if(squares && subtract_mean, row_mean_vector(row), even);
        set_dest_base(section);
        add_piece<squares, masked, row>(even, odd, mean, elements);
        add_section<squares, masked, row + 1>(section, elements);
    }
}

// Adds all steps of a group to the sums, and frees their sections.
template <bool squares>
void add_group(uint32_t steps, uint32_t& section, int last_piece_elements) {
    set_dest_base(0);
#pragma GCC unroll 4
    for (uint32_t row = 0; row < group_rows; ++row) {
        dst_reg[sum_vector(row)] = 0.0f;
        dst_reg[sum_vector(row) + 1] = 0.0f;
    }
    for (uint32_t step = 0; step < steps; ++step) {
        take<filled>();
        if (squares && subtract_mean && step == steps - 1 && last_piece_elements != int(piece_elements)) {
            add_section<squares, true>(section, last_piece_elements);
        } else {
            add_section<squares, false>(section, last_piece_elements);
        }
        give<free_sections, p_stall::WAIT_SFPU>();
        section = other_section(section);
    }
    set_dest_base(0);
}

// A row's partial sums: its even vectors' and its odd ones'.
struct Float32Sums {
    sfpi_inline vFloat operator()(uint32_t row) const {
        return vFloat(dst_reg[sum_vector(row)]) + vFloat(dst_reg[sum_vector(row) + 1]);
    }
};

// 1 / sqrt(x), a row's 1 / rms or 1 / std, rounded to bfloat16 if so wanted (a tie away from zero): once a row, so that what is
// made of the row's elements costs the same.
sfpi_inline vFloat make_scale(vFloat x) {
    vFloat scale = inverse_sqrt(x);
    if constexpr (round_inverse_rms) {
        return convert<vFloat16b>(scale, RoundMode::Nearest);
    } else {
        return scale;
    }
}

// Stores 1 / std of rows whose squares, or squared deviations, add up to `squares`; twice that where the divisor is 2
// W. One SFPMAD multiplies and adds epsilon, because SFPI's compiler would contract the two however they were written.
sfpi_inline void store_scale(vFloat squares) {
    if constexpr (tap == Tap::mean) {
        store_rows(scale_vector(0), dst_reg[mean_vector]);
    } else if constexpr (tap == Tap::variance) {
        store_rows(scale_vector(0), squares * inverse_divisor);
    } else {
        store_rows(scale_vector(0), make_scale(squares * inverse_divisor + epsilon));
    }
}

// 1 / std of bfloat16 rows. A constant row gets zero, because x * (1 / std) - mean * (1 / std) would leave the rounding of
// the second product.
sfpi_inline vFloat inverse_std(vFloat variance) {
    vFloat scale = inverse_sqrt(variance + epsilon);
    v_if(variance == 0.0f) { scale = 0.0f; }
    v_endif;
    return scale;
}

// Stores 1 / std and -mean / std of bfloat16 rows.
sfpi_inline void store_scale_and_shift(vFloat variance) {
    if constexpr (tap == Tap::mean) {
        store_rows(scale_vector(0), dst_reg[mean_vector]);
    } else if constexpr (tap == Tap::variance) {
        store_rows(scale_vector(0), variance);
    } else if constexpr (tap == Tap::inverse_std) {
        store_rows(scale_vector(0), inverse_sqrt(variance + epsilon));
    } else {
        vFloat scale = inverse_std(variance);
        dst_reg[mean_vector] = -(vFloat(dst_reg[mean_vector]) * scale);
        store_rows(scale_vector(0), scale);
        store_rows(shift_vector(0), dst_reg[mean_vector]);
    }
}

// Stores how many of a row's W elements each lane's sum has, in a set of statistics: element e is in partial sum e % 128,
// and a lane has four.
inline void store_lane_counts(const MathArguments& arguments) {
    const int remainder = arguments.lane_count_remainder;
    constexpr int quarter_faces = by_tiles ? 4 : 1;
#pragma GCC unroll 4
    for (int quarter = 0; quarter < quarter_faces; ++quarter) {
        vFloat count = scalar(arguments.lane_count_bits);
        if (remainder != 0) {
#pragma GCC unroll 4
            for (int v = 0; v < int(half_face_vectors); ++v) {
                v_if(vInt(remainder - first_element(v) - 16 * quarter) - lane_element() > 0) { count = count + 1.0f; }
                v_endif;
            }
        }
        dst_reg[lane_count_vector(quarter)] = count;
    }
}

// Puts a group's statistics where the packer takes them from.
sfpi_inline void emit_statistics(vFloat mean, vFloat variance) {
    dst_reg[vector_of(emission_dest_row)] = mean;
    dst_reg[vector_of(emission_dest_row) + 1] = variance;
    give<normalized, p_stall::WAIT_SFPU>();
}

// The statistics of a group's rows from those of as many columns of each chip, which lie eight a row: of fewer chips, each
// more than once. The variance of all is the mean of theirs, and of the squares of their means' distances from the mean.
// (merge_tile_statistics in tile_math_thread.h adds the same pairs.)
sfpi_inline void merge_statistics() {
    constexpr float eighth = 0.125f;
    set_dest_base(0);
    take<filled>();
    vFloat variance = dst_reg[vector_of(chips_dest_row) + 1];
    if constexpr (!subtract_mean) {
        vFloat mean_square = add_lanes(variance) * eighth;
        give<free_sums, p_stall::WAIT_SFPU>();
        store_rows(scale_vector(0), make_scale(mean_square + epsilon));
    } else {
        vFloat of_chip = dst_reg[vector_of(chips_dest_row)];
        vFloat mean = add_lanes(of_chip) * eighth;
        vFloat distance = of_chip - mean;
        vFloat total = add_lanes(distance * distance + variance) * eighth;
        give<free_sums, p_stall::WAIT_SFPU>();
        dst_reg[mean_vector] = mean;
        if constexpr (input_float32) {
            store_rows(scale_vector(0), inverse_sqrt(total + epsilon));
            store_rows(row_mean_vector(0), dst_reg[mean_vector]);
        } else {
            store_scale_and_shift(total);
        }
    }
}

// Makes the statistics of a group's rows, and in float32 first their sums, of which the unpack thread sends all steps
// again.
sfpi_inline void make_statistics(uint32_t steps, uint32_t& section, int last_piece_elements) {
    if constexpr (takes_statistics) {
        merge_statistics();
        return;
    }
    if constexpr (emits_statistics) {
        take<free_emission>();
    }
    if constexpr (input_float32) {
        if constexpr (subtract_mean) {
            add_group<false>(steps, section, last_piece_elements);
            store_rows(row_mean_vector(0), make_mean(Float32Sums{}));
        }
        add_group<true>(steps, section, last_piece_elements);
        vFloat total = row_totals(Float32Sums{});
        if constexpr (emits_statistics) {
            vFloat mean_square = total * inverse_divisor;
            emit_statistics(load_if(subtract_mean, mean_vector, mean_square), mean_square);
        } else {
            store_scale(total);
        }
    } else {
        set_dest_base(0);
        take<filled>();
        if constexpr (subtract_mean) {
            vFloat variance = make_variance();
            if constexpr (emits_statistics) {
                emit_statistics(dst_reg[mean_vector], variance);
            } else {
                store_scale_and_shift(variance);
            }
        } else {
            vFloat total = row_totals(
                [](uint32_t row) __attribute__((always_inline)) { return load_sum(square_sum_vector(row)); });
            vFloat doubled = total + total;
            if constexpr (emits_statistics) {
                vFloat mean_square = doubled * inverse_divisor;
                emit_statistics(mean_square, mean_square);
            } else {
                store_scale(doubled);
            }
        }
        give<free_sums, p_stall::WAIT_SFPU>();
    }
}

}  // namespace layernorm
