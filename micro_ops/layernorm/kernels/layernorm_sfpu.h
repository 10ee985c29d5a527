// The math thread: LayerNorm's arithmetic on the SFPU, in float32, over what lies in Dest (dest.h).
//
// An SFPU vector is 32 lanes: four rows of Dest, of which it takes the eight even columns or the eight odd ones. A block
// of 128 elements is four vectors. Lane l is row l / 8, column 2 * (l % 8); vConstTileId reads 2 * l in lane l.
//
// A row's sums are four vectors of partial sums each. The statistics are made for four rows at once: SFPTRANSP brings
// each row's partial sums into one row of lanes (eight lanes a row), so that what follows costs as much for four rows as
// for one. A group of a single row has its sums in all four rows of lanes. Both add the same numbers in the same order,
// and a row's result does not depend on the rows around it.
#pragma once

#include "dest.h"
#include "sfpi.h"

namespace layernorm {

using namespace sfpi;

constexpr uint32_t vector_of(uint32_t dest_row) { return dest_row / 2; }
constexpr uint32_t block_vectors = vector_of(block_dest_rows);
constexpr uint32_t piece_vectors = piece_blocks * block_vectors;
constexpr uint32_t gamma_vector = vector_of(gamma_dest_row), beta_vector = vector_of(beta_dest_row);

constexpr uint32_t sum_vector(uint32_t row) { return vector_of(sums_dest_row + row * row_sums_dest_rows); }
constexpr uint32_t square_sum_vector(uint32_t row) { return sum_vector(row) + block_vectors; }

// Vectors behind the sums
constexpr uint32_t statistics_vector = vector_of(statistics_dest_row);
constexpr uint32_t scale_vector(uint32_t row) { return statistics_vector + row; }  // 1 / std
constexpr uint32_t shift_vector(uint32_t row) { return statistics_vector + group_rows + row; }  // -mean / std
constexpr uint32_t mean_vector = statistics_vector + 2 * group_rows;
constexpr uint32_t count_vector = mean_vector + 1;  // how many elements each lane's sum has
static_assert(count_vector < vector_of(dest_rows), "the statistics reach beyond Dest");

// What is given out in place of a row's 1 / std, for tests
constexpr bool taps_statistic = tap == Tap::mean || tap == Tap::variance || tap == Tap::inverse_std;

constexpr bool gamma_on_sfpu = uses_gamma && !gamma_on_fpu;

constexpr auto inverse_width = vConstFloatPrgm0;
constexpr auto sum_width = vConstFloatPrgm1;
constexpr auto epsilon = vConstFloatPrgm2;

sfpi_inline vFloat scalar(uint32_t bits) { return as<vFloat>(vUInt(bits)); }

sfpi_inline vFloat load_if(bool wanted, uint32_t vector, vFloat otherwise) {
    if (wanted) {
        return dst_reg[vector];
    }
    return otherwise;
}

// Sums four vectors of partial sums.
sfpi_inline vFloat load_sum(uint32_t vector) {
    vFloat a = vFloat(dst_reg[vector]) + vFloat(dst_reg[vector + 1]);
    vFloat b = vFloat(dst_reg[vector + 2]) + vFloat(dst_reg[vector + 3]);
    return a + b;
}

// Moves each of a row's eight lanes on by one, the last to the front.
sfpi_inline vFloat rotate(vFloat v) { return vFloat(subvec_shflror1(v)); }

// The sums of each of a, b, c and d: that of a in the first row of lanes, of b in the second, and so on. Float32 addition
// commutes, so each rotation adds the same pairs in every lane, and a row's lanes agree to the bit.
sfpi_inline vFloat totals(vFloat a, vFloat b, vFloat c, vFloat d) {
    subvec_transp(a, b, c, d);
    vFloat sum = (a + b) + (c + d);
    vFloat half = sum + rotate(rotate(rotate(rotate(sum))));
    vFloat quarter = half + rotate(rotate(half));
    return quarter + rotate(quarter);
}

// 1 / sqrt(x) for normal x: a guess from the exponent, and Newton's steps. Of an infinity or a NaN it makes a NaN.
sfpi_inline vFloat inverse_sqrt(vFloat x) {
    vFloat y = as<vFloat>(vInt(0x5f3759df) - as<vInt>(as<vUInt>(x) >> 1));
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
        vFloat residual = 1.0f + -(x * y) * y;
        vFloat next = residual * addexp(y, -1) + y;
        y = next;
    }
    return y;
}

// `partial_sums(row)` of each row, totalled.
template <class PartialSums>
sfpi_inline vFloat row_totals(PartialSums partial_sums) {
    vFloat first = partial_sums(0);
    if constexpr (group_rows == 1) {
        return totals(first, first, first, first);
    } else {
        vFloat second = partial_sums(1);
        vFloat third = partial_sums(2);
        vFloat fourth = partial_sums(3);
        return totals(first, second, third, fourth);
    }
}

// Writes each row's value to all lanes of a vector of its own, at `vector` and following. No other vector lives on.
sfpi_inline void store_rows(uint32_t vector, vFloat value) {
    if constexpr (group_rows == 1) {
        dst_reg[vector] = value;
    } else {
        vFloat a = value, b = value, c = value, d = value;
        subvec_transp(a, b, c, d);
        dst_reg[vector] = a;
        dst_reg[vector + 1] = b;
        dst_reg[vector + 2] = c;
        dst_reg[vector + 3] = d;
    }
}

// The mean is sum / W: a product with a rounded 1 / W can be off by an ULP, which a constant row of 1e4 with eps 1e-6
// would show as a deviation of order one; a Newton step on the residual makes it a division.
template <class PartialSums>
sfpi_inline vFloat make_mean(PartialSums partial_sums) {
    vFloat sum = row_totals(partial_sums);
    vFloat quotient = sum * inverse_width;
    vFloat residual = sum + -quotient * sum_width;
    vFloat mean = residual * inverse_width + quotient;
    dst_reg[mean_vector] = mean;
    return mean;
}

// The variance of bfloat16 rows comes from the sums of x and x^2 without their cancellation: each lane's sum of
// (x - pivot)^2 is made first, with the mean rounded to bfloat16 as the pivot. Where that cancels, the elements are of one
// exponent, so that all sums are exact integers in units of their last place. The pivot is then too close to the mean for
// the last correction to cancel.
sfpi_inline vFloat make_variance() {
    vFloat mean = make_mean([](uint32_t row) __attribute__((always_inline)) {
        vFloat partial = load_sum(sum_vector(row));
        dst_reg[sum_vector(row)] = partial;
        return partial;
    });
    vFloat pivot = convert<vFloat16b>(mean, RoundMode::Nearest);
    store_rows(scale_vector(0), pivot);
    vFloat total = row_totals([](uint32_t row) __attribute__((always_inline)) {
        vFloat p = dst_reg[scale_vector(row)];
        vFloat excess = p * vFloat(dst_reg[count_vector]) - vFloat(dst_reg[sum_vector(row)]);
        return p * excess + load_sum(square_sum_vector(row));
    });
    vFloat mean_again = dst_reg[mean_vector];
    vFloat offset = mean_again - convert<vFloat16b>(mean_again, RoundMode::Nearest);
    vFloat doubled = total + total;
    return -offset * offset + doubled * inverse_width;
}

// ---- float32: one partial sum a lane, in the first vector of a row's sums. Then the squares' sums take their place.

// x, or (x - mean)^2, of vector v of a row's piece, added to `sum`. valid: elements of the piece that are not padding,
// which must not count: zero minus the mean is not zero.
template <bool squares, bool masked>
sfpi_inline vFloat add_vector(vFloat sum, vFloat x, vFloat mean, uint32_t v, int valid) {
    if constexpr (masked) {
        v_if(vInt(valid - int(v / 2 * 64 + v % 2)) - vConstTileId <= 0) { x = mean; }
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
sfpi_inline void add_piece(vFloat even, vFloat odd, vFloat mean, int valid) {
    if constexpr (v == piece_vectors) {
        set_dest_base(0);
        dst_reg[sum_vector(row)] = even;
        dst_reg[sum_vector(row) + 1] = odd;
    } else {
        vFloat x_even = dst_reg[row * piece_vectors + v];
        vFloat x_odd = dst_reg[row * piece_vectors + v + 1];
        vFloat next_even = add_vector<squares, masked>(even, x_even, mean, v, valid);
        vFloat next_odd = add_vector<squares, masked>(odd, x_odd, mean, v + 1, valid);
        add_piece<squares, masked, row, v + 2>(next_even, next_odd, mean, valid);
    }
}

// Adds a section's rows to their sums.
template <bool squares, bool masked, uint32_t row = 0>
sfpi_inline void add_section(uint32_t section, int valid) {
    if constexpr (row < group_rows) {
        set_dest_base(0);
        vFloat even = dst_reg[sum_vector(row)];
        vFloat odd = dst_reg[sum_vector(row) + 1];
        vFloat mean = load_if(squares && subtract_mean, shift_vector(row), even);
        set_dest_base(section);
        add_piece<squares, masked, row>(even, odd, mean, valid);
        add_section<squares, masked, row + 1>(section, valid);
    }
}

template <bool squares>
void add_group(uint32_t steps, uint32_t& section, int valid) {
    set_dest_base(0);
#pragma GCC unroll 4
    for (uint32_t row = 0; row < group_rows; ++row) {
        dst_reg[sum_vector(row)] = 0.0f;
        dst_reg[sum_vector(row) + 1] = 0.0f;
    }
    for (uint32_t step = 0; step < steps; ++step) {
        take<filled>();
        if (squares && subtract_mean && step == steps - 1 && valid != int(piece_vectors * 32)) {
            add_section<squares, true>(section, valid);
        } else {
            add_section<squares, false>(section, valid);
        }
        give<free_sections, p_stall::WAIT_SFPU>();
        section = other_section(section);
    }
    set_dest_base(0);
}

// A row's partial sums, where there are two.
struct Float32Sums {
    sfpi_inline vFloat operator()(uint32_t row) const {
        return vFloat(dst_reg[sum_vector(row)]) + vFloat(dst_reg[sum_vector(row) + 1]);
    }
};

// Stores 1 / std of rows whose squares, or squared deviations, add up to `squares`. Epsilon is added by the instruction
// that multiplies, as SFPI's compiler would have it however it were written.
sfpi_inline void store_scale(vFloat squares) {
    if constexpr (tap == Tap::mean) {
        store_rows(scale_vector(0), dst_reg[mean_vector]);
    } else if constexpr (tap == Tap::variance) {
        store_rows(scale_vector(0), squares * inverse_width);
    } else {
        store_rows(scale_vector(0), inverse_sqrt(squares * inverse_width + epsilon));
    }
}

// Stores 1 / std and -mean / std of bfloat16 rows. A constant row, of which x * (1 / std) - mean * (1 / std) would leave
// the rounding of the last product, gets zeros.
sfpi_inline void store_scale_and_shift(vFloat variance) {
    if constexpr (tap == Tap::mean) {
        store_rows(scale_vector(0), dst_reg[mean_vector]);
    } else if constexpr (tap == Tap::variance) {
        store_rows(scale_vector(0), variance);
    } else if constexpr (tap == Tap::inverse_std) {
        store_rows(scale_vector(0), inverse_sqrt(variance + epsilon));
    } else {
        vFloat scale = inverse_sqrt(variance + epsilon);
        v_if(variance == 0.0f) { scale = 0.0f; }
        v_endif;
        dst_reg[mean_vector] = -(vFloat(dst_reg[mean_vector]) * scale);
        store_rows(scale_vector(0), scale);
        store_rows(shift_vector(0), dst_reg[mean_vector]);
    }
}

// Whether `standardize` leaves the multiplication by 1 / std to `scale_and_shift`, whose addition of beta SFPI's compiler
// would contract with it.
constexpr bool scales_with_beta = tap == Tap::none && subtract_mean && input_float32 && uses_beta && !gamma_on_sfpu;

sfpi_inline vFloat standardize(vFloat x, vFloat scale, vFloat shift) {
    if constexpr (tap == Tap::input) {
        return x;
    } else if constexpr (taps_statistic) {
        return scale;
    } else if constexpr (scales_with_beta) {
        return x - shift;
    } else if constexpr (subtract_mean && input_float32) {
        return (x - shift) * scale;
    } else if constexpr (subtract_mean) {
        return x * scale + shift;
    } else if constexpr (round_before_gamma) {
        return convert<vFloat16b>(x * scale, RoundMode::Nearest);
    } else {
        return x * scale;
    }
}

sfpi_inline vFloat scale_and_shift(vFloat y, vFloat scale, vFloat gamma, vFloat beta) {
    if constexpr (scales_with_beta) {
        return y * scale + beta;
    } else if constexpr (gamma_on_sfpu && uses_beta) {
        return y * gamma + beta;
    } else if constexpr (gamma_on_sfpu) {
        return y * gamma;
    } else if constexpr (uses_beta) {
        return y + beta;
    } else {
        return y;
    }
}

// Two rows of a section at a time, which share gamma and beta. What is done to one fills the latency of the other.
template <uint32_t row>
void normalize_two_rows(uint32_t section) {
    set_dest_base(0);
    vFloat scale_a = dst_reg[scale_vector(row)], scale_b = dst_reg[scale_vector(row + 1)];
    vFloat shift_a = load_if(subtract_mean, shift_vector(row), scale_a);
    vFloat shift_b = load_if(subtract_mean, shift_vector(row + 1), scale_b);
    set_dest_base(section);
#pragma GCC unroll 32
    for (uint32_t v = 0; v < piece_vectors; ++v) {
        const uint32_t at_a = row * piece_vectors + v, at_b = at_a + piece_vectors;
        vFloat x_a = dst_reg[at_a];
        vFloat x_b = dst_reg[at_b];
        vFloat y_a = standardize(x_a, scale_a, shift_a);
        vFloat y_b = standardize(x_b, scale_b, shift_b);
        vFloat gamma = load_if(gamma_on_sfpu, gamma_vector + v, y_a);
        vFloat beta = load_if(uses_beta, beta_vector + v, y_a);
        vFloat z_a = scale_and_shift(y_a, scale_a, gamma, beta);
        vFloat z_b = scale_and_shift(y_b, scale_b, gamma, beta);
        dst_reg[at_a] = z_a;
        dst_reg[at_b] = z_b;
    }
}

sfpi_inline void normalize_one_row(uint32_t section, vFloat scale, vFloat shift) {
    set_dest_base(section);
#pragma GCC unroll 16
    for (uint32_t v = 0; v < piece_vectors; v += 2) {
        vFloat x_a = dst_reg[v];
        vFloat x_b = dst_reg[v + 1];
        vFloat y_a = standardize(x_a, scale, shift);
        vFloat y_b = standardize(x_b, scale, shift);
        vFloat gamma_a = load_if(gamma_on_sfpu, gamma_vector + v, y_a);
        vFloat gamma_b = load_if(gamma_on_sfpu, gamma_vector + v + 1, y_b);
        vFloat beta_a = load_if(uses_beta, beta_vector + v, y_a);
        vFloat beta_b = load_if(uses_beta, beta_vector + v + 1, y_b);
        vFloat z_a = scale_and_shift(y_a, scale, gamma_a, beta_a);
        vFloat z_b = scale_and_shift(y_b, scale, gamma_b, beta_b);
        dst_reg[v] = z_a;
        dst_reg[v + 1] = z_b;
    }
}

// How many of W elements each lane's sums have: element e is in partial sum e % 128. 4 * (W / 128) as a float's bits, and
// W % 128
inline void store_counts(uint32_t whole_bits, int remainder) {
    vFloat count = scalar(whole_bits);
    if (remainder != 0) {
#pragma GCC unroll 4
        for (int v = 0; v < int(block_vectors); ++v) {
            v_if(vInt(remainder - v / 2 * 64 - v % 2) - vConstTileId > 0) { count = count + 1.0f; }
            v_endif;
        }
    }
    dst_reg[count_vector] = count;
}

inline void configure_sfpu() {
    sfpu::_init_sfpu_config_reg();
    addr_mod_t{}.set(ADDR_MOD_3);
    addr_mod_t{}.set(ADDR_MOD_7);
    math::reset_counters(p_setrwc::SET_ABD_F);
    set_dest_base(0);
}

template <class NormalizeSection>
sfpi_inline void normalize_steps(uint32_t steps, uint32_t& section, NormalizeSection normalize_section) {
    for (uint32_t step = 0; step < steps; ++step) {
        take<filled>();
        normalize_section();
        give<normalized, p_stall::WAIT_SFPU>();
        section = other_section(section);
    }
}

// Makes the statistics of a group's rows.
sfpi_inline void make_statistics(uint32_t steps, uint32_t& section, int valid) {
    if constexpr (input_float32) {
        if constexpr (subtract_mean) {
            add_group<false>(steps, section, valid);
            store_rows(shift_vector(0), make_mean(Float32Sums{}));
        }
        add_group<true>(steps, section, valid);
        store_scale(row_totals(Float32Sums{}));
    } else {
        set_dest_base(0);
        take<filled>();
        if constexpr (subtract_mean) {
            store_scale_and_shift(make_variance());
        } else {
            vFloat total = row_totals(
                [](uint32_t row) __attribute__((always_inline)) { return load_sum(square_sum_vector(row)); });
            store_scale(total + total);
        }
        give<free_sums, p_stall::WAIT_SFPU>();
    }
}

// *_bits: of float32 values. width_bits: W times how often the sums have each element. valid: elements of a row's last
// piece
inline void math_thread(uint32_t rows, uint32_t steps, uint32_t inverse_width_bits, uint32_t width_bits,
                        uint32_t epsilon_bits, uint32_t count_bits, uint32_t count_remainder, uint32_t valid) {
    configure_sfpu();
    vConstFloatPrgm0 = scalar(inverse_width_bits);
    vConstFloatPrgm1 = scalar(width_bits);
    vConstFloatPrgm2 = scalar(epsilon_bits);
    store_counts(count_bits, count_remainder);

    // The other threads wait for one of these: they would not, were it above zero before.
    ASSERT(semaphore_read(filled) == 0);
    ASSERT(semaphore_read(normalized) == 0);
    ASSERT(semaphore_read(free_sums) == 0);
    ASSERT(semaphore_read(free_sections) == 0);
    t6_semaphore_init(filled, 0, semaphore::SEMAPHORE_MAX_VALUE);
    t6_semaphore_init(normalized, 0, semaphore::SEMAPHORE_MAX_VALUE);
    t6_semaphore_init(free_sums, 1, semaphore::SEMAPHORE_MAX_VALUE);
    t6_semaphore_init(free_sections, sections, semaphore::SEMAPHORE_MAX_VALUE);

    uint32_t section = 0;
    for (uint32_t first = 0; first < rows; first += group_rows) {
        make_statistics(steps, section, valid);
        if constexpr (group_rows == 1) {
            vFloat scale = dst_reg[scale_vector(0)];
            vFloat shift = load_if(subtract_mean, shift_vector(0), scale);
            normalize_steps(
                steps, section, [&]() __attribute__((always_inline)) { normalize_one_row(section, scale, shift); });
        } else {
            normalize_steps(steps, section, [&]() __attribute__((always_inline)) {
                normalize_two_rows<0>(section);
                if (rows - first > 2) {
                    normalize_two_rows<2>(section);
                }
            });
        }
    }
}

}  // namespace layernorm
