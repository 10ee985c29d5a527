// How the three compute threads share Dest, and how they hand its parts to one another.
//
// Dest holds 512 rows of 16 float32. A row of the input goes through it in pieces of `piece_blocks` blocks; a block is
// 128 consecutive elements, 8 rows of Dest, which is what one FPU instruction works on. Rows go in groups of
// `group_rows`, whose pieces lie one behind the other:
//
//   rows 0-191, 192-383   two sections, each a step's x (one piece a row), gamma and beta: one is filled while the
//                         other is normalized and packed
//   rows 384-447          the sums of a group's rows, as 128 partial sums of 2 x and of x^2 each
//   rows 448-511          the rows' statistics, a vector (4 rows x 8 columns of Dest, all lanes equal) each
//
// Semaphores count what is handed over:
//
//   filled      unpack -> SFPU   sections, and in their turn the sums of the group that comes next
//   normalized  SFPU -> pack     sections
//   sections    pack -> unpack   sections that may be filled
//   sums        SFPU -> unpack   the sums may be overwritten
#pragma once

#include <cstdint>

#include "ckernel.h"

namespace layernorm {

using namespace ckernel;

constexpr uint32_t dest_rows = 512;
constexpr uint32_t block_dest_rows = 8;
constexpr uint32_t group_rows = get_named_compile_time_arg_val("group_rows");
constexpr uint32_t piece_blocks = get_named_compile_time_arg_val("piece_blocks");
static_assert(group_rows == 1 || group_rows == 4, "SFPTRANSP brings the sums of four rows together, or of one in four");
static_assert((piece_blocks >= 1 && piece_blocks <= 4) || (piece_blocks == 8 && group_rows == 1),
              "the replay buffer holds the instructions for 4 blocks, which 8 blocks of a single row replay twice");
constexpr uint32_t piece_dest_rows = piece_blocks * block_dest_rows;
constexpr uint32_t dest_tile_rows = 64;

constexpr uint32_t sections = 2;
constexpr uint32_t section_tiles = 3;
constexpr uint32_t section_dest_rows = section_tiles * dest_tile_rows;
constexpr uint32_t gamma_dest_row = group_rows * piece_dest_rows;  // in a section
constexpr uint32_t beta_dest_row = gamma_dest_row + piece_dest_rows;
static_assert(beta_dest_row + piece_dest_rows <= section_dest_rows, "a step of x, gamma and beta exceeds its section");
constexpr uint32_t sums_dest_row = sections * section_dest_rows;
constexpr uint32_t row_sums_dest_rows = 2 * block_dest_rows;  // 2 x, then x^2
constexpr uint32_t statistics_dest_row = sums_dest_row + group_rows * row_sums_dest_rows;

// float32 would be truncated in SrcA, so it is unpacked to Dest, and added up by the SFPU: all steps of a group pass
// through the sections once for the mean, once for the squares of the deviations, and once for the result.
constexpr uint32_t passes = input_float32 ? (subtract_mean ? 3 : 2) : 1;

constexpr uint32_t filled = semaphore::FPU_SFPU;
constexpr uint32_t normalized = semaphore::MATH_PACK;
constexpr uint32_t free_sections = semaphore::PACK_DONE;
constexpr uint32_t free_sums = semaphore::UNPACK_MATH_DONE;
constexpr uint32_t firmware_semaphore_max = 1;  // of MATH_PACK and PACK_DONE; it sets none of the other two

// Waits for something to be handed over, and takes it.
template <uint32_t what>
inline void take() {
    t6_semaphore_wait_on_zero<p_stall::STALL_SYNC>(what);
    t6_semaphore_get(what);
}

// Hands something over once `unit` has finished this thread's instructions.
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
