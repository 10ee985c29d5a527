// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Compute (TRISC0-2) of rows that come as tiles: LayerNorm, or RMSNorm where `subtract_mean` is off. Its arithmetic is that of
// sticks (compute.cpp), to the bit; dest.h says how a tile lies in Dest.
//
// Cores may share rows, each with some of its tiles. Then a stripe (dest.h) is added up by one of them, which gets copies of
// all faces of it in cb_rows, and sends the sums of each quad (4 rows that stand one below the other) to the core that makes
// the quad's statistics, which sends those to all. In float32, which must be added up twice, that core gets copies of the
// quad's quarter faces, and adds them up itself.
//
// CB contract, in pages of a tile but for gamma's and beta's, which are a tile's columns, and those that are said:
//   pops    cb_input           for each row of tiles, this core's tiles of it                                    <- reader
//   keeps   cb_gamma, cb_beta  those of this core's columns, waited for one by one, never popped                 <- reader
//   pushes  cb_output          as it pops of cb_input                                                            -> writer
// where there is a residual, cb_stream stands for cb_input in what is said above, and
//   pops    cb_input           this core's tiles, one by one; of a shard, at a row's end the others in it         <- reader
//   pops    cb_residual        as cb_input                                                                        <- reader
//   pushes  cb_stream          s = x + residual of them, all of a row before its first result                     -> itself
//   pushes  cb_output          the same, in front of a row's results, unless cb_stream lies over a shard          -> writer
// and where rows are gathered:
//   pops    cb_rows            for each of this core's stripes, all of it, a page is two faces; float32: for each
//                              of its quads, a page is 4 tiles' of a quad                                        <- reader
//   pushes  cb_own_statistics  for each of its stripes, a page of float32, with 32 Dest rows of sums             -> writer
//   pops    cb_sums            for each of its quads, a page of float32, 64 Dest rows of sums; not if float32    <- reader
//   pushes  cb_own_statistics  for each of its quads, a page of float32, with this quad's and others' statistics -> writer
//   pops    cb_statistics      for each row of tiles, the statistics of all of its quads, one page               <- reader
// where statistics are emitted (variant.h), in place of results
//   pushes  cb_own_statistics  for each of this core's quads a page, with this quad's and others'                -> writer
// and where they are taken
//   pops    cb_statistics      for each row of tiles, all chips' statistics of its rows, one page                <- reader
//
// Unpack thread: unpacker and FPU (tile_unpack_thread.h). Math thread: SFPU (tile_math_thread.h). Pack thread: packer
// (tile_pack_thread.h).
//
// Budget, beside what compute.cpp has:
//   Dest rows of a section   128 of which 64 x, 16 gamma, 16 beta; 32 left; or 64 x, 64 of the residual
//   Dest rows behind them    256: 64 sums, 26 statistics, 32 quads; and 32 own quads, 102 left, of which 32 are packed, too;
//                            or once more 64 sums and 26 statistics, 44 left; or chips' 64 in the sums' place
//   replay slots             LayerNorm 2 + 20 + 4 of 32, RMSNorm 2 + 16 + 4 + 4
//   LREGs                    LayerNorm 8 of 8, RMSNorm 5
//   unpack thread's GPRs     TMP0, TMP1, TILE_SIZE, TILE_OFFSET, L1_BUFFER_ADDR,
//                            PERF_UNPACK_NUM_TILES_0 to _2 (unpacker.h)
#include "api/compute/common.h"
#include "api/compute/compute_kernel_hw_startup.h"
#include "api/compute/pack.h"
#include "tiles.h"
#ifdef TRISC_UNPACK
#include "tile_unpack_thread.h"
#endif
#ifdef TRISC_MATH
#include "tile_math_thread.h"
#endif
#ifdef TRISC_PACK
#include "tile_pack_thread.h"
#endif

void kernel_main() {
    using namespace layernorm;
    const Tiles tiles{.rows = RUNTIME_ARG(tile_rows),
                      .across = RUNTIME_ARG(tiles_across),
                      .own = RUNTIME_ARG(own_tiles),
                      .row_pages = RUNTIME_ARG(row_pages),
                      .term_pages = RUNTIME_ARG(term_pages),
                      .ring_terms = RUNTIME_ARG(ring_terms),
                      .rows_pages = RUNTIME_ARG(rows_pages),
                      .sums_pages = RUNTIME_ARG(sums_pages),
                      .quads = RUNTIME_ARG(quads),
                      .last_quads = RUNTIME_ARG(last_quads),
                      .first_stripe = RUNTIME_ARG(first_stripe),
                      .stripe_stride = RUNTIME_ARG(adders),
                      .first_quad = RUNTIME_ARG(first_quad),
                      .quad_stride = RUNTIME_ARG(makers)};
    constexpr uint32_t cb_fpu = input_float32 && uses_gamma && !gamma_float32 ? cb_gamma
                                : input_float32 && uses_beta && !beta_float32 ? cb_beta
                                                                              : cb_input;
    UNPACK((llk_unpack_hw_configure<DST_ACCUM_MODE>(cb_input, cb_fpu)));
    MATH((llk_math_hw_configure<DST_ACCUM_MODE>(cb_fpu, cb_fpu)));
    PACK((llk_pack_hw_configure<DST_ACCUM_MODE>(cb_output)));
    PACK((llk_pack_init<PackMode::Default>(cb_output)));
    PACK((llk_pack_dest_init<DST_ACCUM_MODE, PackMode::Default>(cb_output)));
    UNPACK((tile_unpack_thread(tiles, RUNTIME_ARG(ring_tiles))));
    MATH((tile_math_thread(tiles,
                           {.divisor_bits = RUNTIME_ARG(divisor_bits),
                            .inverse_divisor_bits = RUNTIME_ARG(inverse_divisor_bits),
                            .epsilon_bits = RUNTIME_ARG(epsilon_bits),
                            .lane_count_bits = RUNTIME_ARG(lane_count_bits),
                            .lane_count_remainder = RUNTIME_ARG(lane_count_remainder),
                            .last_piece_elements = 0},
                           RUNTIME_ARG(last_columns))));
    PACK((tile_pack_thread(tiles)));
}
