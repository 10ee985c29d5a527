// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// SFPU vectors: where they lie in Dest, and what sums, spreads and loads them.
//
// An SFPU vector is 32 lanes: four rows of Dest, of which it takes the eight even columns or the eight odd ones. A half
// face is four vectors: its upper rows' even and odd columns, then its lower rows'. Lane l is row l / 8, column 2 * (l
// % 8); vConstTileId reads 2 * l in lane l.
#pragma once

#include "dest.h"
#include "sfpi.h"

namespace layernorm {

using namespace sfpi;

constexpr uint32_t lregs = 8;  // vectors that can be live at once: SFPI's compiler does not spill

constexpr uint32_t vector_of(uint32_t dest_row) { return dest_row / 2; }
constexpr uint32_t half_face_vectors = vector_of(half_face_dest_rows);
constexpr uint32_t piece_vectors = piece_half_faces * half_face_vectors;
constexpr uint32_t gamma_vector = vector_of(gamma_dest_row), beta_vector = vector_of(beta_dest_row);

// Of tiles, one of a quad's first four quarter faces in place of a row (dest.h).
constexpr uint32_t sum_vector(uint32_t row) {
    return by_tiles ? vector_of(sums_dest_row + row / 2 * row_sums_dest_rows + row % 2 * 4)
                    : vector_of(sums_dest_row + row * row_sums_dest_rows);
}
constexpr uint32_t square_sum_vector(uint32_t row) { return sum_vector(row) + half_face_vectors; }

// Behind the sums. Those of a row have its value in all lanes.
constexpr uint32_t statistics_vector = vector_of(statistics_dest_row);
// 1 / std, or what a tap writes in its place; while the variance is made, the row's pivot.
constexpr uint32_t scale_vector(uint32_t row) { return statistics_vector + row; }
// What is added to x * (1 / std), -mean / std. float32 rows subtract their mean from x instead, and have it here.
constexpr uint32_t shift_vector(uint32_t row) { return statistics_vector + group_rows + row; }
constexpr uint32_t row_mean_vector(uint32_t row) { return shift_vector(row); }
// A group's means, that of row r in the lanes 8 r to 8 r + 7; at last its shifts, before they are spread.
constexpr uint32_t mean_vector = statistics_vector + 2 * group_rows;
// How many elements of a row each lane's sum has. A quad's four partial sums have each their own.
constexpr uint32_t lane_count_vector(uint32_t row) { return mean_vector + 1 + (by_tiles ? row : 0); }
static_assert(lane_count_vector(group_rows - 1) < vector_of(by_tiles ? quads_dest_row : dest_rows),
              "budget of Dest rows (compute.cpp): statistics end beyond row 511");

// 1 / std of a quad's rows, row r in the lanes 8 r to 8 r + 7; behind it what is added to x * (1 / std), or the mean.
constexpr uint32_t quad_scale_vector(uint32_t quad) { return vector_of(quads_dest_row + quad * quad_dest_rows); }
constexpr uint32_t quad_shift_vector(uint32_t quad) { return quad_scale_vector(quad) + 1; }

// The three programmable constant registers. A mean is a sum / divisor: W, or 2 W where the sums are of 2 x.
constexpr auto inverse_divisor = vConstFloatPrgm0;
constexpr auto divisor = vConstFloatPrgm1;
constexpr auto epsilon = vConstFloatPrgm2;

// The element of a row's piece in lane 0 of vector v, and how many elements behind it is that in each lane. A quad's rows
// of lanes have the same elements of four rows.
constexpr int first_element(uint32_t v) { return v / 2 * 64 + v % 2; }
sfpi_inline vInt lane_element() {
    if constexpr (by_tiles) {
        return vConstTileId & 15;
    } else {
        return vConstTileId;
    }
}

sfpi_inline vFloat scalar(uint32_t bits) { return as<vFloat>(vUInt(bits)); }

// dst_reg[vector] if wanted, else `otherwise`, a value that is live already, so that an unused operand takes no LREG.
sfpi_inline vFloat load_if(bool wanted, uint32_t vector, vFloat otherwise) {
    if (wanted) {
        return dst_reg[vector];
    }
    return otherwise;
}

// The sum of the four vectors that hold the partial sums e and e + 64 of even and odd columns: a half face's four; of
// tiles, two of a quarter face and two of the fourth one behind it.
constexpr uint32_t vectors_to_sum_64 = by_tiles ? 2 * vector_of(row_sums_dest_rows) : 2;
sfpi_inline vFloat load_sum(uint32_t vector) {
    vFloat a = vFloat(dst_reg[vector]) + vFloat(dst_reg[vector + 1]);
    vFloat b = vFloat(dst_reg[vector + vectors_to_sum_64]) + vFloat(dst_reg[vector + vectors_to_sum_64 + 1]);
    return a + b;
}

// Moves each of a row's eight lanes on by one, the last to the front.
sfpi_inline vFloat rotate(vFloat v) { return vFloat(subvec_shflror1(v)); }

// The sum of each row's eight lanes, in all eight.
sfpi_inline vFloat add_lanes(vFloat eighths) {
    vFloat quarters = eighths + rotate(rotate(rotate(rotate(eighths))));
    vFloat halves = quarters + rotate(rotate(quarters));
    return halves + rotate(halves);
}

// The sums of each of a, b, c and d: that of a in the first row of lanes, of b in the second, and so on. Float32 addition
// commutes, so each rotation adds the same pairs in every lane, and a row's lanes agree to the bit.
//
// subvec_transp is SFPTRANSP, which permutes LREG4-7 as it does LREG0-3: no other vector may be live across this call.
//
// A quad's rows are rows of lanes already: a, b, c and d are its quarter faces.
sfpi_inline vFloat totals(vFloat a, vFloat b, vFloat c, vFloat d) {
    if constexpr (!by_tiles) {
        subvec_transp(a, b, c, d);
    }
    return add_lanes((a + b) + (c + d));
}

// `partial_sums(row)` of each row of a group, totalled: row r's in the lanes 8 r to 8 r + 7.
//
// SFPTRANSP brings each row's partial sums into one row of lanes, so that all that follows costs as much for four rows as
// for one. A row alone has its sums in all four rows of lanes. Both add the same numbers in the same order, and a row's
// result does not depend on the rows around it.
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

// Writes each row's value, of the lanes 8 r to 8 r + 7, to all lanes of a vector of its own, at `vector` and following.
// SFPTRANSP also permutes LREG4-7: no other vector may be live across this call.
sfpi_inline void store_rows(uint32_t vector, vFloat value) {
    if constexpr (group_rows == 1 || by_tiles) {
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

}  // namespace layernorm
