// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Gamma and beta, into their CBs. Where cores send them to one another, the reader reads this core's parts before its rows,
// which DRAM is busy with for long; and the writer sends them, by the NoC that has nothing else to do yet. Else each core
// reads all of its columns: the writer where they are many pages, since it has time, or else the reader, which starts
// earlier.
#pragma once

#include "parts.h"

constexpr uint32_t cb_gamma = get_named_compile_time_arg_val("cb_gamma");
constexpr uint32_t cb_beta = get_named_compile_time_arg_val("cb_beta");
constexpr bool has_gamma = get_named_compile_time_arg_val("has_gamma");
constexpr bool has_beta = get_named_compile_time_arg_val("has_beta");
constexpr uint32_t gamma_piece = get_named_compile_time_arg_val("gamma_piece");  // bytes
constexpr uint32_t beta_piece = get_named_compile_time_arg_val("beta_piece");
constexpr uint32_t gamma_size = get_named_compile_time_arg_val("gamma_size");  // of an element, bytes
constexpr uint32_t beta_size = get_named_compile_time_arg_val("beta_size");
// A weight is one page, or pages of so many bytes that follow one another in DRAM's banks, the first of them empty.
constexpr bool gamma_is_paged = get_named_compile_time_arg_val("gamma_is_paged");
constexpr bool beta_is_paged = get_named_compile_time_arg_val("beta_is_paged");
constexpr uint32_t gamma_page = get_named_compile_time_arg_val("gamma_page");
constexpr uint32_t beta_page = get_named_compile_time_arg_val("beta_page");

constexpr bool weights_are_sent = get_named_compile_time_arg_val("weights_are_sent");
constexpr bool reader_has_rows = get_named_compile_time_arg_val("reader_has_rows");  // from the start, as a shard
constexpr bool reader_reads_weights = weights_are_sent || reader_has_rows || !(gamma_is_paged || beta_is_paged);
constexpr uint32_t gamma_semaphores = get_named_compile_time_arg_val("gamma_semaphores");  // that of the first part
constexpr uint32_t beta_semaphores = get_named_compile_time_arg_val("beta_semaphores");
constexpr uint32_t all_parts = (1 << max_parts) - 1;

constexpr uint32_t weights_trid = 1;  // that of the first part, of gamma and of beta

// The part of gamma or beta that is to be read next, of this core's columns, which begin with a page.
template <class Pages, bool is_paged, uint32_t page_size>
struct NextPart {
    Pages pages;
    uint32_t page;
    Stick stick;

    // Reads it, `size` bytes or as many as are left; or as many more as end with a page.
    __attribute__((always_inline)) void read(uint32_t size) {
        if constexpr (is_paged) {
            static_assert(page_size <= NOC_MAX_BURST_SIZE, "a page of gamma or beta is read as one packet");
            for (uint32_t done = 0; done < size && stick.left > 0; done += page_size) {
                const uint32_t count = stick.left < page_size ? stick.left : page_size;
                noc_async_read<page_size>(pages.get_noc_addr(page++), stick.address, count);
                stick.address += count;
                stick.left -= count;
            }
        } else {
            stick.read(size);
        }
    }

    // Leaves it to another core. Where some are, each part ends with a page.
    __attribute__((always_inline)) void skip(uint32_t size) {
        page += size / page_size;
        stick.source += size;
        stick.address += size;
        stick.left -= size;
    }
};

// Reads the parts p of gamma and beta whose bits are set, under the transaction ids `weights_trid` + p.
template <uint32_t first_accessor>
__attribute__((always_inline)) inline void read_weights(
    uint32_t first_step, uint32_t own_steps, uint32_t own_columns, uint32_t part_pages, uint32_t gamma_parts,
    uint32_t beta_parts) {
    constexpr auto gamma_args = TensorAccessorArgs<first_accessor>();
    constexpr auto beta_args = TensorAccessorArgs<gamma_args.next_compile_time_args_offset()>();
    const uint32_t gamma_at = first_step * gamma_piece, beta_at = first_step * beta_piece;
    const auto gamma = TensorAccessor(gamma_args, RUNTIME_ARG(gamma_address), gamma_page);
    const auto beta = TensorAccessor(beta_args, RUNTIME_ARG(beta_address), beta_page);
    NextPart<decltype(gamma), gamma_is_paged, gamma_page> next_gamma{
        gamma, 1 + gamma_at / gamma_page,
        {gamma_is_paged ? 0 : gamma.get_noc_addr(0, gamma_at), get_write_ptr(cb_gamma), own_columns * gamma_size}};
    NextPart<decltype(beta), beta_is_paged, beta_page> next_beta{
        beta, 1 + beta_at / beta_page,
        {beta_is_paged ? 0 : beta.get_noc_addr(0, beta_at), get_write_ptr(cb_beta), own_columns * beta_size}};
    ASSERT(own_columns * gamma_size <= own_steps * gamma_piece);
    for_each_part(own_steps, part_pages, [&](uint32_t part, uint32_t) __attribute__((always_inline)) {
        noc_async_read_set_trid(weights_trid + part);
        const auto is_ours = [&](uint32_t parts) __attribute__((always_inline)) {
            return parts == all_parts || (parts >> part & 1) != 0;  // mostly known at compile time
        };
        if constexpr (has_gamma) {
            is_ours(gamma_parts) ? next_gamma.read(part_pages * gamma_piece) : next_gamma.skip(part_pages * gamma_piece);
        }
        if constexpr (has_beta) {
            is_ours(beta_parts) ? next_beta.read(part_pages * beta_piece) : next_beta.skip(part_pages * beta_piece);
        }
    });
}

// Pushes what was read, as it arrives.
__attribute__((always_inline)) inline void push_weights(uint32_t own_steps) {
    for_each_part(own_steps, part_of(own_steps), [](uint32_t part, uint32_t pages) __attribute__((always_inline)) {
        noc_async_read_barrier_with_trid(weights_trid + part);
        if constexpr (has_gamma) {
            cb_push_back(cb_gamma, pages);
        }
        if constexpr (has_beta) {
            cb_push_back(cb_beta, pages);
        }
    });
}

// What a core sends: from the lowest byte, its parts of gamma, those of beta (bit p is part p), the number of rectangles.
struct Sends {
    uint32_t word;
    uint32_t gamma_parts() const { return word & 0xff; }
    uint32_t beta_parts() const { return word >> 8 & 0xff; }
    uint32_t rectangles() const { return word >> 16; }
};

// Gamma or beta where cores send its parts to one another. A part's semaphore is 1 when the part is in L1.
template <uint32_t cb, uint32_t piece, uint32_t first_semaphore>
struct SentWeight {
    uint32_t pages, part_pages;     // of all parts, and of one
    uint32_t own_parts;             // bit p: part p is read and sent by this core
    uint32_t pushed = 0, part = 0;  // pages, parts

    // To be called once this core's read of the part has ended.
    __attribute__((always_inline)) void mark(uint32_t read) const {
        if (own_parts >> read & 1) {
            *semaphore(first_semaphore + read) = 1;
        }
    }

    // Pushes the next part if there is one and it has arrived.
    __attribute__((always_inline)) void push() {
        if (pushed == pages || *semaphore(first_semaphore + part) == 0) {
            return;
        }
        const uint32_t count = pages - pushed < part_pages ? pages - pushed : part_pages;
        cb_push_back(cb, count);
        pushed += count;
        ++part;
    }

    // Sends a part, if it is this core's to send, when it is in L1. The writer's pointer to the CB is at its start.
    __attribute__((always_inline)) void send(const Receivers& to, uint32_t sent) const {
        if (own_parts >> sent & 1) {
            const uint32_t first = sent * part_pages;
            const uint32_t count = pages - first < part_pages ? pages - first : part_pages;
            const auto wait = [sent]() __attribute__((always_inline)) {
                noc_semaphore_wait(semaphore(first_semaphore + sent), 1);
            };
            const uint32_t at = get_write_ptr(cb) + first * piece;
            to.multicast(at, at, count * piece, number(1), first_semaphore + sent, wait);
        }
    }
};
using SentGamma = SentWeight<cb_gamma, gamma_piece, gamma_semaphores>;
using SentBeta = SentWeight<cb_beta, beta_piece, beta_semaphores>;
