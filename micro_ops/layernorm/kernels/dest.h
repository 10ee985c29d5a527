// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// How the three compute threads share Dest, and how they hand its parts to one another.
//
// Dest holds 512 rows of 16 float32. 8 of its rows, 128 consecutive elements of a row of the input, are a half face:
// what one FPU instruction works on. A row of the input goes through Dest in pieces of `piece_half_faces` half faces.
// Rows go in groups of `group_rows`, whose pieces lie one behind the other:
//
//   Dest rows 0-191, 192-383  two sections, each for a step's x (a piece of each row), gamma and beta: one is filled
//                             while the other is normalized and packed
//   from Dest row 384 on      16 for each row of a group: its 128 partial sums of 2 x, then those of x^2
//   behind them               statistics, SFPU vectors of 4 Dest rows x 8 columns (vectors.h)
//
// Of tiles, 4 rows that stand one below the other in a face are a *quad*, and its 4 rows of 16 columns a *quarter face*. A
// section holds a tile as it lies in memory; the partial sums are those of a quad:
//
//   Dest rows 0-127, 128-255  two sections: 64 rows of x, 8 for each 16 columns of gamma, 8 of beta, all 8 alike
//   256-319                   a quad's 128 partial sums of each of 4 rows: for each tile of 4, 8 rows of 2 x, then of x^2
//   320-345                   statistics while they are made (vectors.h)
//   384-415                   of each quad, 4 rows: 1 / std in the even columns, -mean / std in the odd ones
//   416-505                   where bfloat16 rows are not gathered, nor statistics emitted, the second set of sums and
//                             statistics, for every other quad: the FPU adds one up while the SFPU makes the statistics
//                             of the other
//   448-479                   the same of the quads whose statistics this core makes (without stripes it adds them up), to
//                             be packed, where rows are gathered or statistics emitted (variant.h)
//
// Where rows are gathered, what a core adds up is a quad, or of wide rows in bfloat16 a *stripe*: of a row of tiles' upper
// faces, or of its lower ones, every eighth. Its 16 rows of 16 columns are those of the partial sums e % 128 from 16 c
// on, c of 8:
//
//   256-287                   a stripe's sums: for each half face, 8 rows of 2 x, then of x^2
//
// The cores that have a quad's eight stripes send its rows of them to the core that makes its statistics, where they lie as
// the sums of a quad.
//
// A row's partial sum e % 128 is made of the same elements in the same order as that of a stick.
//
// Four semaphores count what one thread hands to another:
//
//   filled         unpack -> SFPU   sections with their operands; in bfloat16, before a group's first one, also its
//                                   sums; with a residual, before those of a group (or of a row of tiles), its x and residual;
//                                   of tiles also a quad's sums that have come (`unpack_sums`), and a row's statistics
//                                   (`unpack_statistics`)
//   normalized     SFPU -> pack     sections with results, or with s = x + residual; where rows are gathered or statistics
//                                   emitted, also the statistics of a quad
//                  unpack -> pack   the sums of a stripe (`add_stripes`)
//   free_sections  pack -> unpack   sections that may be filled (in float32's first passes SFPU -> unpack)
//   free_sums      SFPU -> unpack   sets of sums that may be overwritten, or of chips' statistics
//                  pack -> unpack   the same, of a stripe's sums, once they are packed
//
// A thread tells by the order alone what it takes. Where statistics are emitted (variant.h), there is a fifth:
//
//   free_emission  pack -> SFPU     statistics that may be overwritten: once they are packed
#pragma once

#include <cstdint>

#include "ckernel.h"
#include "variant.h"

namespace layernorm {

using namespace ckernel;

constexpr uint32_t dest_rows = 512;
constexpr uint32_t half_face_dest_rows = 8;
constexpr uint32_t half_face_elements = half_face_dest_rows * 16;
static_assert(half_face_elements == get_named_compile_time_arg_val("half_face_elements"), "plan.py has another half face");
constexpr uint32_t group_rows = get_named_compile_time_arg_val("group_rows");
constexpr uint32_t piece_half_faces = get_named_compile_time_arg_val("piece_half_faces");
static_assert(group_rows == 1 || group_rows == 4, "a group is 4 rows, as many as SFPTRANSP exchanges, or 1");
static_assert((piece_half_faces >= 1 && piece_half_faces <= 4) || (piece_half_faces == 8 && group_rows == 1),
              "the replay buffer holds the instructions for 4 half faces, which 8 of a single row replay twice");
constexpr uint32_t piece_elements = piece_half_faces * half_face_elements;
constexpr uint32_t piece_dest_rows = piece_half_faces * half_face_dest_rows;
constexpr uint32_t tile_dest_rows = 64;
static_assert(tile_dest_rows * 16 == get_named_compile_time_arg_val("tile_elements"), "plan.py has another tile");

constexpr uint32_t sections = 2;
constexpr uint32_t section_tiles = by_tiles ? 2 : 3;
constexpr uint32_t section_dest_rows = section_tiles * tile_dest_rows;
constexpr uint32_t gamma_dest_row = by_tiles ? tile_dest_rows : group_rows * piece_dest_rows;  // in a section
constexpr uint32_t weight_dest_rows = by_tiles ? 2 * half_face_dest_rows : piece_dest_rows;
constexpr uint32_t beta_dest_row = gamma_dest_row + weight_dest_rows;
static_assert(beta_dest_row + weight_dest_rows <= section_dest_rows,
              "budget of Dest rows (compute.cpp): a step of x, gamma and beta exceeds a section's 192");
// While s is made, a section has x in its first rows, and the residual from this row on: of sticks as many pieces of each as
// pack_tile writes (pack_thread.h), or one.
constexpr uint32_t residual_dest_row = tile_dest_rows;
constexpr uint32_t term_pieces = output_is_sharded ? 1 : tile_dest_rows / piece_dest_rows;
constexpr uint32_t sums_dest_row = sections * section_dest_rows;
constexpr uint32_t row_sums_dest_rows = 2 * half_face_dest_rows;  // 2 x, then x^2
constexpr uint32_t statistics_dest_row = sums_dest_row + group_rows * row_sums_dest_rows;
constexpr uint32_t quad_dest_rows = 4;
constexpr uint32_t quads_dest_row = 384, own_quads_dest_row = 448;
constexpr uint32_t sum_sets = by_tiles && !rows_are_gathered && !emits_statistics && !input_float32 ? 2 : 1;
constexpr uint32_t sum_set_dest_rows = 160;  // from a set to the next: behind the quads

// Where statistics are emitted: a group's, row r in Dest row r of these, the mean in each even column and the variance in
// each odd one; of RMSNorm the mean square in both. Of tiles they are emitted quad by quad, from where own quads are. Where
// they are taken, those of all chips lie likewise in the place of the sums, as many columns of one chip as of another. Of
// tiles, they lie chip by chip: four columns for each of 32 rows, so that a row of Dest has a quad's.
constexpr uint32_t emission_dest_row = 448;
constexpr uint32_t chips_dest_row = sums_dest_row;
constexpr uint32_t statistics_pages = 2;  // of cb_statistics, where those of chips are taken of sticks
// Of tiles, that a chip's take: a page of them (reader.cpp)
constexpr uint32_t chip_dest_rows =
    get_named_compile_time_arg_val("page_rows") * get_named_compile_time_arg_val("record_size") / (16 * sizeof(float));
static_assert(emission_dest_row % tile_dest_rows == 0, "pack_tile counts tiles");

// The set of the next quad, in Dest rows from the first one.
inline uint32_t other_sum_set(uint32_t set) { return sum_sets == 1 || set != 0 ? 0 : sum_set_dest_rows; }

// float32 would be truncated in SrcA, so it is unpacked to Dest, and added up by the SFPU: all steps of a group pass
// through the sections once for the mean, once for the squares of the deviations, and once for the result.
constexpr uint32_t passes = input_float32 && !takes_statistics ? (subtract_mean ? 3 : 2) : 1;

constexpr uint32_t filled = semaphore::FPU_SFPU;
constexpr uint32_t normalized = semaphore::MATH_PACK;
constexpr uint32_t free_sections = semaphore::PACK_DONE;
constexpr uint32_t free_sums = semaphore::UNPACK_MATH_DONE;
constexpr uint32_t free_emission = semaphore::UNPACK_OPERAND_SYNC;
constexpr uint32_t firmware_semaphore_max = 1;  // of MATH_PACK and PACK_DONE; it sets none of the other two

// Of a row: all `count` steps are added up, and `own` of them, from `first` on, are normalized. The others' results are
// made by other cores, which add up the same steps in the same order.
struct Steps {
    uint32_t count, first, own;
};

// What the CBs hold.
struct Rings {
    uint32_t rows;          // of cb_source
    uint32_t term_pages;    // where there is a residual: of cb_input and cb_residual
    uint32_t stream_pages;  // and those of cb_stream that a group takes
};

// Stalls this thread's instructions until semaphore `what` is above zero, and decrements it.
template <uint32_t what>
inline void take() {
    t6_semaphore_wait_on_zero<p_stall::STALL_SYNC>(what);
    t6_semaphore_get(what);
}

// Increments semaphore `what` once `unit` has finished this thread's earlier instructions.
template <uint32_t what, uint32_t unit>
inline void give() {
    t6_semaphore_post<unit>(what);
}

// Where this thread's FPU and SFPU instructions count Dest rows from.
inline void set_dest_base(uint32_t dest_row) { TT_SETC16(DEST_TARGET_REG_CFG_MATH_Offset_ADDR32, dest_row); }

inline uint32_t other_section(uint32_t section) { return section == 0 ? section_dest_rows : 0; }

inline uint32_t rows_of_group(uint32_t first_row, uint32_t rows) {
    return rows - first_row < group_rows ? rows - first_row : group_rows;
}

}  // namespace layernorm
