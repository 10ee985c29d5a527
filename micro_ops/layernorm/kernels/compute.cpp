// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Compute (TRISC0-2): LayerNorm, or RMSNorm where `subtract_mean` is off, of one group of rows (dest.h) after another.
//
// A page of the input's, gamma's and beta's CBs is a piece of a row (dest.h), one of cb_output is a tile's 1,024
// elements; or a piece, too, if cb_output lies over a shard: its tile has then as many elements, and the packer writes no
// more.
//
// CB contract:
//   pops    cb_input           the pieces of a group's rows, row by row; padded with zeros to whole pieces  <- reader
//   keeps   cb_gamma, cb_beta  those of this core's columns, waited for one by one, never popped  <- reader or writer
//   pushes  cb_output          for each own step of a group, a piece of each row, one behind the other      -> writer
// where there is a residual, cb_stream stands for cb_input in what is said above, and
//   pops    cb_input           the pieces of a group's rows, some at a time (`term_pieces`)                 <- reader
//   pops    cb_residual        as cb_input                                                                  <- reader
//   pushes  cb_stream          s = x + residual of them, all of a group before its first result; behind it  -> itself
//                              what the packer needs to write whole tiles, unless cb_stream lies over a shard.
//                              Of a row that is cut, it writes this core's columns to their place, and the
//                              reader pushes all of the row, once the others' have come                    <- reader
//   pushes  cb_output          the same, in front of a group's results, unless cb_stream lies over a shard  -> writer
// where statistics are emitted (variant.h), in place of results
//   pushes  cb_own_statistics  for each group a page of 64 rows of Dest, the first 4 with its statistics    -> writer
// and where they are taken
//   pops    cb_statistics      for each group a page, of a piece in float32, that begins with 4 rows of
//                              Dest with all chips' statistics                                             <- reader
//
// Unpack thread: unpacker and FPU, x into Dest, sums of x and of x^2 (unpack_thread.h, unpacker.h, fpu.h)
// Math thread:   SFPU, statistics and result (math_thread.h, statistics.h, normalize.h, vectors.h)
// Pack thread:   packer (pack_thread.h)
//
// Budget: what is in use, of how much, and what is left. Figures are of the largest piece, with gamma and beta.
//
//                             of   group of 4 rows            left   a row alone               left
//   Dest rows of a section   192   128 x, 32 gamma, 32 beta      0   64 x, 64 gamma, 64 beta      0
//   the same, for s          192   64 x, 64 residual            64   64 x, 64 residual           64
//   Dest rows behind them    128   64 sums, 20 statistics       44   16 sums, 8 statistics      104
//   replay slots              32   LayerNorm 2 + 20 + 4          6   the same: 8 half faces replay
//                                  RMSNorm 2 + 16 + 4 + 4        6   the sequences of 4 twice
//   LREGs, LayerNorm           8   8; 7 with one weight          0   8; 6 with one weight         0
//   LREGs, RMSNorm             8   5                             3   5                            3
//   LREGs, statistics          8   8 variance, 7 float32's sums, 5 1 / std (measured)             0
//   constant registers         3   1 / divisor, divisor, epsilon (vectors.h)                      0
//   FPU address modes          4   4: Wormhole's instructions have two bits to name one (fpu.h)   0
//   semaphores                 8   FPU_SFPU, MATH_PACK, PACK_DONE, UNPACK_MATH_DONE (dest.h)      4
//                                  UNPACK_OPERAND_SYNC, where statistics are emitted               3
//   unpack thread's GPRs           TMP0, TMP1, TILE_SIZE, PERF_UNPACK_NUM_TILES_0 and _1, and
//                                  L1_BUFFER_ADDR, where statistics are taken (unpacker.h)
//   transaction ids           15   11, in the reader (reader.cpp)                                 4
//
// static_asserts hold Dest rows, replay slots, address modes, transaction ids and the LREGs of normalize.h. For the other
// LREGs, SFPI's compiler and its stand-in refuse to spill. Only the unpack thread records to its replay buffer.
#include <cstdint>

#include "api/compute/common.h"
#include "api/compute/compute_kernel_hw_startup.h"
#include "dest.h"
#ifdef TRISC_UNPACK
#include "unpack_thread.h"
#endif
#ifdef TRISC_MATH
#include "math_thread.h"
#endif
#ifdef TRISC_PACK
#include "pack_thread.h"
#endif

void kernel_main() {
    using namespace layernorm;
    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t all_steps = RUNTIME_ARG(steps);
    const Steps steps{
        all_steps, rows_are_cut ? RUNTIME_ARG(first_step) : 0, rows_are_cut ? RUNTIME_ARG(own_steps) : all_steps};

    // The FPU is set up for the CB whose bfloat16 it takes, if there is one: float32 is unpacked to Dest.
    constexpr uint32_t cb_fpu = input_float32 && uses_gamma && !gamma_float32 ? cb_gamma
                                : input_float32 && uses_beta && !beta_float32 ? cb_beta
                                                                              : cb_input;
    UNPACK((llk_unpack_hw_configure<DST_ACCUM_MODE>(cb_input)));
    MATH((llk_math_hw_configure<DST_ACCUM_MODE>(cb_fpu, cb_fpu)));
    PACK((llk_pack_hw_configure<DST_ACCUM_MODE>(cb_output)));
    PACK((llk_pack_init<PackMode::Default>(cb_output)));
    PACK((llk_pack_dest_init<DST_ACCUM_MODE, PackMode::Default>(cb_output)));
    const Rings rings{RUNTIME_ARG(ring_rows), has_residual ? RUNTIME_ARG(term_pages) : 0,
                      has_residual ? RUNTIME_ARG(stream_pages) : 0};
    UNPACK((unpack_thread(rows, steps, rings)));
    MATH((math_thread(rows, steps,
                      {.divisor_bits = RUNTIME_ARG(divisor_bits),
                       .inverse_divisor_bits = RUNTIME_ARG(inverse_divisor_bits),
                       .epsilon_bits = RUNTIME_ARG(epsilon_bits),
                       .lane_count_bits = RUNTIME_ARG(lane_count_bits),
                       .lane_count_remainder = RUNTIME_ARG(lane_count_remainder),
                       .last_piece_elements = RUNTIME_ARG(last_piece_elements)})));
    PACK((pack_thread(rows, steps, rings.stream_pages)));
}
