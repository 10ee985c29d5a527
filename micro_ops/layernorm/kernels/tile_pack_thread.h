// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The pack thread of tiles: rounds each normalized tile, and frees its section. With a residual it rounds a row's
// s = x + residual first. Where cores share a row, it then packs what the others need before there is a result: the
// sums of this core's stripes, if rows go by these, and the statistics of the quads of which it makes them. Where statistics
// are emitted, these are all there is.
#pragma once

#include "tiles.h"

namespace layernorm {

constexpr bool stream_is_sharded = get_named_compile_time_arg_val("stream_is_sharded");

// Puts Dest rows into cb_own_statistics, in float32: the sums of a stripe, or the statistics of this core's quads.
//
// All that is needed lies in the first 32 of them: a stripe's sums take 32, statistics of a tile's quads 32 at most.
// With tiles of 16 rows no more than these are packed, since the CB's tile has two faces then; with tiles of 32, 64.
inline void pack_own_statistics(uint32_t dest_row) {
    cb_reserve_back(cb_own_statistics, 1);
    take<normalized>();
    pack_reconfig_data_format(cb_own_statistics);
    pack_tile(dest_row / tile_dest_rows, cb_own_statistics);
    cb_push_back(cb_own_statistics, 1);
    pack_reconfig_data_format(cb_output);
}

// Rounds s, and puts it where it is normalized from; and if that is no shard of it, to the writer, too.
inline void pack_stream(const Tiles& tiles, uint32_t& section) {
    for (uint32_t tile = 0; tile < tiles.own; ++tile) {
        cb_reserve_back(cb_stream, 1);
        if constexpr (!stream_is_sharded) {
            cb_reserve_back(cb_output, 1);
        }
        take<normalized>();
        pack_tile(section / tile_dest_rows, cb_stream);
        if constexpr (!stream_is_sharded) {
            pack_tile(section / tile_dest_rows, cb_output);
        }
        give<free_sections, p_stall::PACK>();
        cb_push_back(cb_stream, 1);
        if constexpr (!stream_is_sharded) {
            cb_push_back(cb_output, 1);
        }
        section = other_section(section);
    }
    const uint32_t pages = tiles.row_pages - tiles.own;
    cb_reserve_back(cb_stream, pages);
    cb_push_back(cb_stream, pages);
}

inline void tile_pack_thread(const Tiles& tiles) {
    // In float32 the sections in which a quad is added up go from the unpack thread to the SFPU and back. Sections take
    // turns, so after an odd number of those the first normalized section is the other one.
    uint32_t section = 0;
    for (uint32_t row = 0; row < tiles.rows; ++row) {
        if constexpr (has_residual) {
            pack_stream(tiles, section);
        }
        if constexpr (rows_are_striped) {
            for (uint32_t i = tiles.first_stripe; i < tiles.stripes_of(row); i += tiles.stripe_stride) {
                pack_own_statistics(sums_dest_row);
                give<free_sums, p_stall::PACK>();
            }
        }
        for (uint32_t quad = tiles.first_quad; quad < tiles.quads_of(row); quad += tiles.quad_stride) {
            if ((passes - 1) * chunks(tiles) % 2 != 0) {
                section = other_section(section);
            }
            if constexpr (rows_are_gathered || emits_statistics) {
                pack_own_statistics(own_quads_dest_row);
            }
            if constexpr (emits_statistics) {
                give<free_emission, p_stall::PACK>();
            }
        }
        if constexpr (emits_statistics) {
            continue;
        }
        for (uint32_t tile = 0; tile < tiles.own; ++tile) {
            cb_reserve_back(cb_output, 1);
            take<normalized>();
            pack_tile(section / tile_dest_rows, cb_output);
            give<free_sections, p_stall::PACK>();
            cb_push_back(cb_output, 1);
            section = other_section(section);
        }
        if constexpr (output_is_sharded) {  // a shard's pages in front of its next row
            const uint32_t pages = tiles.row_pages - tiles.own;
            cb_reserve_back(cb_output, pages);
            cb_push_back(cb_output, pages);
        }
    }
}

}  // namespace layernorm
