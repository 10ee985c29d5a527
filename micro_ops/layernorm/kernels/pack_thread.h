// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The pack thread: rounds each normalized section to the output's dtype, and frees it. It waits for room in cb_output,
// then for `normalized`, a section with results; it gives `free_sections`.
//
// pack_tile writes 64 Dest rows of 16 elements to L1 one behind the other, in the order of their Dest rows. A tile of
// ttnn would have its four faces there; here each Dest row holds 16 consecutive elements of a row of the tensor, so
// that L1 gets 1,024 consecutive elements of the pieces in a section. (Over a shard a tile is no larger than a piece.)
//
// With a residual, it rounds a group's s = x + residual first.
#pragma once

#include "api/compute/pack.h"
#include "dest.h"

namespace layernorm {

constexpr uint32_t step_tiles = (group_rows * piece_dest_rows + tile_dest_rows - 1) / tile_dest_rows;

// Rounds a group's `pieces` of s, and puts them where they are normalized from, row by row; and if those are no shards of s,
// to the writer, too, in `step_tiles` pages of which it needs the first: so a step's results never go round cb_output's end.
// What pack_tile writes behind a section's pieces the next section's overwrite; cb_stream has room for the last one's.
// first: of a row that is cut, the place of this core's pieces
inline void pack_stream(uint32_t pieces, uint32_t first, uint32_t stream_pages, uint32_t& tile) {
    cb_reserve_back(cb_stream, stream_pages);
    for (uint32_t done = 0; done < pieces; done += term_pieces) {
        if constexpr (!output_is_sharded) {
            cb_reserve_back(cb_output, step_tiles);
        }
        take<normalized>();
        pack_tile<stream_is_sent>(tile, cb_stream, first + done);
        if constexpr (!output_is_sharded) {
            pack_tile(tile, cb_output);
        }
        give<free_sections, p_stall::PACK>();
        if constexpr (!stream_is_sent) {
            cb_push_back(cb_stream, pieces - done > term_pieces ? term_pieces : stream_pages - done);
        }
        if constexpr (!output_is_sharded) {
            cb_push_back(cb_output, step_tiles);
        }
        tile = tile == 0 ? section_tiles : 0;
    }
}

// Puts a group's statistics into cb_own_statistics, in float32, and rows of Dest behind them that nobody needs.
inline void pack_emission() {
    cb_reserve_back(cb_own_statistics, 1);
    take<normalized>();
    pack_reconfig_data_format(cb_own_statistics);
    pack_tile(emission_dest_row / tile_dest_rows, cb_own_statistics);
    give<free_emission, p_stall::PACK>();
    cb_push_back(cb_own_statistics, 1);
    pack_reconfig_data_format(cb_output);
}

inline void pack_thread(uint32_t rows, Steps steps, uint32_t stream_pages) {
    uint32_t tile = 0;
    // In float32 the sections of a group's first passes go from the unpack thread to the SFPU and back, never to the
    // packer. Sections take turns, so after an odd number of those a group's first normalized section is the other one.
    const bool first_section_alternates = (passes - 1) * steps.count % 2 != 0;
    for (uint32_t first = 0; first < rows; first += group_rows) {
        const uint32_t tiles = (rows_of_group(first, rows) * piece_dest_rows + tile_dest_rows - 1) / tile_dest_rows;
        if constexpr (has_residual) {
            pack_stream(rows_of_group(first, rows) * steps.own, steps.first, stream_pages, tile);
        }
        if (first_section_alternates) {
            tile = tile == 0 ? section_tiles : 0;
        }
        if constexpr (emits_statistics) {
            pack_emission();
            continue;
        }
        for (uint32_t step = 0; step < steps.own; ++step) {
            ASSERT(tile + tiles <= sections * section_tiles);
            cb_reserve_back(cb_output, tiles);
            take<normalized>();
            for (uint32_t i = 0; i < tiles; ++i) {
                pack_tile(tile + i, cb_output);
            }
            give<free_sections, p_stall::PACK>();
            cb_push_back(cb_output, tiles);
            tile = tile == 0 ? section_tiles : 0;
        }
    }
}

}  // namespace layernorm
