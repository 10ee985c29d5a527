// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The math thread of tiles: the same arithmetic on the SFPU as for sticks (math_thread.h), of a quad's rows at once.
#pragma once

#include "math_thread.h"
#include "tiles.h"

namespace layernorm {

// ---- float32 sums, in the order of sticks: even and odd columns apart; of quarter face n of a quad, those of n + 4, n + 8,
// ... are added to it, one after another.

// x, or (x - mean)^2, of the tile's vector of the columns from `column` on. Of a row's last tile `columns` count.
template <bool squares>
sfpi_inline vFloat add_columns(vFloat sum, vFloat x, vFloat mean, int column, int columns) {
    if constexpr (squares && subtract_mean) {
        if (columns != 32) {  // zero minus the mean is not zero
            v_if(vInt(columns - column) - lane_element() <= 0) { x = mean; }
            v_endif;
        }
        vFloat deviation = x - mean;
        return deviation * deviation + sum;
    } else if constexpr (squares) {
        return x * x + sum;
    } else {
        return sum + x;
    }
}

// Adds the two quarter faces of tile `i` of a chunk to four vectors, the even and the odd columns of each.
template <bool squares, uint32_t i>
sfpi_inline void add_tile(uint32_t section, int columns) {
    constexpr uint32_t x = vector_of(i * half_face_dest_rows), row = i % 2 * 2;
    constexpr uint32_t at[4] = {sum_vector(row), sum_vector(row) + 1, sum_vector(row + 1), sum_vector(row + 1) + 1};
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
        set_dest_base(section);
        vFloat element = dst_reg[x + v];
        set_dest_base(0);
        vFloat sum = dst_reg[at[v]];
        vFloat mean = load_if(squares && subtract_mean, mean_vector, sum);
        vFloat next = add_columns<squares>(sum, element, mean, v / 2 * 16 + v % 2, columns);
        dst_reg[at[v]] = next;
    }
}

// Adds all chunks of a quad, and frees their sections.
template <bool squares>
void add_chunks(const Tiles& tiles, uint32_t& section, int last_columns) {
    set_dest_base(0);
#pragma GCC unroll 4
    for (uint32_t row = 0; row < 4; ++row) {
        dst_reg[sum_vector(row)] = 0.0f;
        dst_reg[sum_vector(row) + 1] = 0.0f;
    }
    const uint32_t count = chunks(tiles);
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t of_chunk = tiles_of_chunk(tiles, i);
        const bool is_last = i + 1 == count;
        take<filled>();
        add_tile<squares, 0>(section, is_last && of_chunk == 1 ? last_columns : 32);
        if (of_chunk > 1) {
            add_tile<squares, 1>(section, is_last && of_chunk == 2 ? last_columns : 32);
        }
        if (of_chunk > 2) {
            add_tile<squares, 2>(section, is_last && of_chunk == 3 ? last_columns : 32);
        }
        if (of_chunk > 3) {
            add_tile<squares, 3>(section, is_last ? last_columns : 32);
        }
        give<free_sections, p_stall::WAIT_SFPU>();
        section = other_section(section);
    }
}

// 1 / std of rows whose squares, or squared deviations, add up to `squares`; or their mean, where that is emitted.
sfpi_inline vFloat scale_or_mean(vFloat squares) {
    if constexpr (emits_statistics) {
        return squares * inverse_divisor;
    } else {
        return make_scale(squares * inverse_divisor + epsilon);
    }
}

// Makes a quad's statistics, whose sums are in `sum_set`, and stores them with those that are normalized by, or to be packed;
// where they are emitted, mean and variance in place of 1 / std and shift, or the mean square for both.
sfpi_inline void make_quad_statistics(
    const Tiles& tiles, uint32_t quad, uint32_t sum_set, uint32_t& section, int last_columns) {
    vFloat scale;
    if constexpr (input_float32) {
        if constexpr (subtract_mean) {
            add_chunks<false>(tiles, section, last_columns);
            make_mean(Float32Sums{});
        }
        add_chunks<true>(tiles, section, last_columns);
        scale = scale_or_mean(row_totals(Float32Sums{}));
    } else {
        // The sums are given back as soon as they have been read.
        set_dest_base(sum_set);
        take<filled>();
        if constexpr (subtract_mean) {
            vFloat variance = make_variance();
            give<free_sums, p_stall::WAIT_SFPU>();
            scale = emits_statistics ? variance : inverse_std(variance);
        } else {
            vFloat total = row_totals(
                [](uint32_t row) __attribute__((always_inline)) { return load_sum(square_sum_vector(row)); });
            give<free_sums, p_stall::WAIT_SFPU>();
            scale = scale_or_mean(total + total);
        }
    }
    vFloat shift = load_if(subtract_mean, mean_vector, scale);
    if constexpr (subtract_mean && !input_float32 && !emits_statistics) {
        shift = -(shift * scale);
    }
    constexpr bool is_packed = rows_are_gathered || emits_statistics;
    set_dest_base((is_packed ? own_quads_dest_row - quads_dest_row : 0) + quad * quad_dest_rows);
    if constexpr (emits_statistics) {
        take<free_emission>();
        dst_reg[quad_scale_vector(0)] = shift;
        dst_reg[quad_shift_vector(0)] = scale;
    } else {
        dst_reg[quad_scale_vector(0)] = scale;
        if constexpr (subtract_mean) {
            dst_reg[quad_shift_vector(0)] = shift;
        }
    }
    set_dest_base(0);
    if constexpr (is_packed) {
        give<normalized, p_stall::WAIT_SFPU>();
    }
}

// Puts the statistics of a quad that this core has added up with those that have come from others.
inline void keep_own_statistics(uint32_t quad) {
    constexpr uint32_t own = vector_of(own_quads_dest_row - quads_dest_row);
    set_dest_base(quad * quad_dest_rows);
    dst_reg[quad_scale_vector(0)] = vFloat(dst_reg[own + quad_scale_vector(0)]);
    if constexpr (subtract_mean) {
        dst_reg[quad_shift_vector(0)] = vFloat(dst_reg[own + quad_shift_vector(0)]);
    }
    set_dest_base(0);
}

// ---- Statistics from those of chips, of the 16 rows of a face at once: a row of lanes has a quad's, twice each

// The sum of `of_chip(c)` of all chips, by the pairs that add_lanes adds.
template <uint32_t first = 0, uint32_t stride = 1, class OfChip>
sfpi_inline vFloat add_chips(OfChip of_chip) {
    if constexpr (stride == chips) {
        return of_chip(first);
    } else {
        vFloat sum = add_chips<first, 2 * stride>(of_chip);
        vFloat others = add_chips<first + stride, 2 * stride>(of_chip);
        return sum + others;
    }
}

// Gives each quad of a face a vector of its own, `vector` and every second one behind it, and each of its rows a row of lanes
// with its value in all of them. SFPTRANSP also permutes LREG4-7: no other vector may be live across this call.
sfpi_inline void store_quads(uint32_t vector, vFloat values) {
    vFloat a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
    vInt column = lane_element();
    v_if(column == 0) { a = values; }
    v_endif;
    v_if(column == 4) { b = values; }
    v_endif;
    v_if(column == 8) { c = values; }
    v_endif;
    v_if(column == 12) { d = values; }
    v_endif;
    subvec_transp(a, b, c, d);
    dst_reg[vector] = add_lanes(a);
    dst_reg[vector + 2] = add_lanes(b);
    dst_reg[vector + 4] = add_lanes(c);
    dst_reg[vector + 6] = add_lanes(d);
}

// As merge_statistics (statistics.h), of the rows of a face, the upper one or the lower one.
template <uint32_t half>
__attribute__((noinline)) void merge_face_statistics() {
    constexpr float part = 1.0f / chips;
    constexpr uint32_t of_half = vector_of(chips_dest_row + half * quad_dest_rows), of_chip = vector_of(chip_dest_rows);
    const auto variance_of = [](uint32_t chip) __attribute__((always_inline)) {
        return vFloat(dst_reg[of_half + chip * of_chip + 1]);
    };
    if constexpr (!subtract_mean) {
        vFloat mean_square = add_chips(variance_of) * part;
        store_quads(quad_scale_vector(half * face_quads), make_scale(mean_square + epsilon));
    } else {
        const auto mean_of = [](uint32_t chip) __attribute__((always_inline)) {
            return vFloat(dst_reg[of_half + chip * of_chip]);
        };
        vFloat mean = add_chips(mean_of) * part;
        dst_reg[mean_vector] = mean;
        vFloat total = add_chips([=](uint32_t chip) __attribute__((always_inline)) {
            vFloat distance = mean_of(chip) - mean;
            return distance * distance + variance_of(chip);
        });
        vFloat variance = total * part;
        if constexpr (input_float32) {
            store_quads(quad_scale_vector(half * face_quads), inverse_sqrt(variance + epsilon));
        } else {
            vFloat scale = inverse_std(variance);
            dst_reg[mean_vector] = -(vFloat(dst_reg[mean_vector]) * scale);
            store_quads(quad_scale_vector(half * face_quads), scale);
        }
        store_quads(quad_shift_vector(half * face_quads), dst_reg[mean_vector]);
    }
}

inline void merge_tile_statistics(uint32_t quads) {
    merge_face_statistics<0>();
    if (quads > face_quads) {
        merge_face_statistics<1>();
    }
}

// ---- Results

// The four quads of a face, whose even and odd columns share gammas and betas.
template <uint32_t section, uint32_t face>
sfpi_inline void normalize_face(vFloat gamma_e, vFloat gamma_o, vFloat beta_e, vFloat beta_o) {
#pragma GCC unroll 4
    for (uint32_t q = 0; q < face_quads; ++q) {
        const uint32_t quad = face / 2 * face_quads + q, at = vector_of(section + face * 16 + q * quad_dest_rows);
        vFloat scale = dst_reg[quad_scale_vector(quad)];
        vFloat mean = load_if(subtract_mean && input_float32, quad_shift_vector(quad), scale);
        vFloat shift = load_if(subtract_mean && !input_float32, quad_shift_vector(quad), scale);
        vFloat x_e = dst_reg[at];
        vFloat x_o = dst_reg[at + 1];
        vFloat y_e = standardize(x_e, scale, mean, shift);
        vFloat y_o = standardize(x_o, scale, mean, shift);
        vFloat z_e = scale_and_shift(y_e, scale, gamma_e, beta_e);
        vFloat z_o = scale_and_shift(y_o, scale, gamma_o, beta_o);
        dst_reg[at] = z_e;
        dst_reg[at + 1] = z_o;
    }
}

// Live at once in it: x of even and odd columns (then y, then z), 1 / std, mean or shift, two gammas and two betas.
static_assert(2 + row_lregs + 2 * column_lregs <= lregs, "budget of LREGs (compute.cpp): a tile needs a ninth");

// A tile's quads; if there are no more than four, its upper two faces.
template <uint32_t section, uint32_t column = 0>
sfpi_inline void normalize_tile(uint32_t quads) {
    if constexpr (column < 2) {
        constexpr uint32_t gamma = vector_of(section + gamma_dest_row + column * half_face_dest_rows);
        constexpr uint32_t beta = vector_of(section + beta_dest_row + column * half_face_dest_rows);
        vFloat any = dst_reg[quad_scale_vector(0)];
        vFloat gamma_e = load_if(gamma_on_sfpu, gamma, any), gamma_o = load_if(gamma_on_sfpu, gamma + 1, any);
        vFloat beta_e = load_if(uses_beta, beta, any), beta_o = load_if(uses_beta, beta + 1, any);
        normalize_face<section, column>(gamma_e, gamma_o, beta_e, beta_o);
        if constexpr (tile_faces == 4) {
            if (quads > face_quads) {
                normalize_face<section, column + 2>(gamma_e, gamma_o, beta_e, beta_o);
            }
        }
        normalize_tile<section, column + 1>(quads);
    }
}

template <uint32_t section>
__attribute__((noinline)) void normalize_section(uint32_t quads) {
    normalize_tile<section>(quads);
}

// last_columns: of a row's last tile
inline void tile_math_thread(const Tiles& tiles, const MathArguments& arguments, int last_columns) {
    start_math(arguments);
    uint32_t section = 0, sum_set = 0;
    for (uint32_t row = 0; row < tiles.rows; ++row) {
        const uint32_t quads = tiles.quads_of(row);
        if constexpr (has_residual) {
            for (uint32_t tile = 0; tile < tiles.own; ++tile) {
                take<filled>();
                add_residual(section, tile_faces);
                give<normalized, p_stall::WAIT_SFPU>();
                section = other_section(section);
            }
        }
        if constexpr (!takes_statistics) {
            for (uint32_t quad = tiles.first_quad; quad < quads; quad += tiles.quad_stride) {
                make_quad_statistics(tiles, quad, sum_set, section, last_columns);
                sum_set = other_sum_set(sum_set);
            }
        }
        if constexpr (emits_statistics) {
            continue;
        }
        set_dest_base(0);
        // If statistics come, the first sections are filled before they have (tile_unpack_thread.h).
        const uint32_t ahead = statistics_come ? tiles_ahead(tiles) : 0;
        if constexpr (statistics_come) {
            for (uint32_t i = 0; i < ahead + 1; ++i) {
                take<filled>();
            }
        }
        if constexpr (takes_statistics) {
            merge_tile_statistics(quads);
        } else if constexpr (rows_are_gathered) {
            for (uint32_t quad = tiles.first_quad; quad < quads; quad += tiles.quad_stride) {
                keep_own_statistics(quad);
            }
        }
        for (uint32_t tile = 0; tile < tiles.own; ++tile) {
            if (tile >= ahead) {
                take<filled>();
            }
            if (section == 0) {
                normalize_section<0>(quads);
            } else {
                normalize_section<section_dest_rows>(quads);
            }
            give<normalized, p_stall::WAIT_SFPU>();
            section = other_section(section);
        }
    }
    if constexpr (emits_statistics) {
        end_emission();
    }
}

}  // namespace layernorm
