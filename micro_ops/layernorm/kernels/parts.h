// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What reader and writer share: operands on their way to L1 in parts, so that compute can start on the first part before
// the others have arrived; from DRAM, or from another core.
//
// Between cores: a row that several cores share is read from DRAM by one of them, or with a residual each makes s = x + residual
// of its own columns; each part of gamma and beta by one of the
// cores that have the same columns. That core multicasts the part to the same place in the others' L1, and then a number
// into a semaphore there. The two arrive in this order, because they leave by one command buffer and one virtual channel.
// Nobody waits for room: these parts are the first to be written to their CBs, which are empty when a launch starts.
#pragma once

#include <cstdint>

#include "api/dataflow/dataflow_api.h"
#include "agreement.h"
#include "receivers.h"

// Whether a core has some of a row's columns alone. Else what it would be told of them is known: each runtime argument is
// a read of L1, of 7 cycles.
constexpr bool rows_are_cut = get_named_compile_time_arg_val("rows_are_cut");
constexpr bool has_residual = get_named_compile_time_arg_val("has_residual");
// Whether cores send one another their parts of s = x + residual: of a row that is cut. Else one sends x.
constexpr bool stream_is_sent = rows_are_cut && has_residual;
constexpr uint32_t cb_stream = get_named_compile_time_arg_val("cb_stream");
constexpr uint32_t stream_semaphores = get_named_compile_time_arg_val("stream_semaphores");  // that of the first core's part
constexpr uint32_t max_parts = get_named_compile_time_arg_val("max_parts");
constexpr uint32_t counts = get_named_compile_time_arg_val("counts");  // the first of the semaphores that hold 1, 2, ...

// Where a number from 1 on lies, to be sent.
__attribute__((always_inline)) inline uint32_t number(uint32_t value) { return get_semaphore(counts + value - 1); }

// Pages of a part, of as many parts as there may be.
__attribute__((always_inline)) inline uint32_t part_of(uint32_t pages) {
    return (pages + max_parts - 1) / max_parts;
}

// Calls part(index, pages) for each part of `pages`; the last one may have fewer than `part_pages`.
template <class Part>
__attribute__((always_inline)) inline void for_each_part(uint32_t pages, uint32_t part_pages, Part part) {
    for (uint32_t index = 0;; ++index) {
        const uint32_t count = pages < part_pages ? pages : part_pages;
        part(index, count);
        pages -= count;
        if (pages == 0) {
            return;
        }
    }
}

// Where rows lie: each is a page that is interleaved, or in runs of so many bytes from the start of a page on.
constexpr bool rows_are_pages = get_named_compile_time_arg_val("rows_are_pages");
constexpr uint32_t run = get_named_compile_time_arg_val("run");
constexpr uint32_t run_pages = get_named_compile_time_arg_val("run_pages");
constexpr uint32_t row_pages = get_named_compile_time_arg_val("row_pages");  // from a row to the next
constexpr uint32_t run_page_size = get_named_compile_time_arg_val("run_page_size");  // bytes, aligned

// Calls each(NoC address, bytes) for each run of the `size` bytes from `at` on of a row.
template <class Pages, class Each>
__attribute__((always_inline)) inline void for_each_run(
    const Pages& pages, uint32_t row, uint32_t at, uint32_t size, Each each) {
    if constexpr (rows_are_pages) {
        each(pages.get_noc_addr(row, at), size);
    } else {
        while (size > 0) {
            const uint32_t in_run = at % run, left = run - in_run, count = size < left ? size : left;
            each(pages.get_noc_addr(row * row_pages + at / run * run_pages, in_run), count);
            at += count;
            size -= count;
        }
    }
}

// Reads the next part of a stick; the caller asks for no more parts than it has.
struct Stick {
    uint64_t source;
    uint32_t address, left;
    void read(uint32_t part_size) {
        noc_async_read(source, address, left < part_size ? left : part_size);
        source += part_size;
        address += part_size;
        left -= part_size;
    }
};
