// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The pack thread: rounds each normalized section to the output's dtype, and frees it. It waits for room in cb_output,
// then for `normalized`, a section with results; it gives `free_sections`.
//
// pack_tile writes 64 Dest rows of 16 elements to L1 one behind the other, in the order of their Dest rows. A tile of
// ttnn would have its four faces there; here each Dest row holds 16 consecutive elements of a row of the tensor, so
// that L1 gets 1,024 consecutive elements of the pieces in a section. (Over a shard a tile is no larger than a piece.)
#pragma once

#include "dest.h"

namespace layernorm {

inline void pack_thread(uint32_t rows, Steps steps) {
    uint32_t tile = 0;
    // In float32 the sections of a group's first passes go from the unpack thread to the SFPU and back, never to the
    // packer. Sections take turns, so after an odd number of those a group's first normalized section is the other one.
    const bool first_section_alternates = (passes - 1) * steps.count % 2 != 0;
    for (uint32_t first = 0; first < rows; first += group_rows) {
        const uint32_t tiles = (rows_of_group(first, rows) * piece_dest_rows + tile_dest_rows - 1) / tile_dest_rows;
        if (first_section_alternates) {
            tile = tile == 0 ? section_tiles : 0;
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
