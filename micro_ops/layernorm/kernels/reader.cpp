// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Reader (NCRISC): row-major sticks from DRAM into L1.
//
// CB contract, in pages of one piece (compute.cpp):
//   pushes  cb_input           `steps` a row: the rows, each padded with zeros to whole pieces  -> compute
//   pushes  cb_gamma, cb_beta  `steps` once, not padded                                         -> compute
//
// What follows the last element of gamma and beta in L1 is garbage. It reaches columns of the result that the writer
// never writes. x is padded, because the padding would reach the sums.
//
// The reads of two groups are in flight, each group's under a transaction id of its own. The first group, gamma and beta
// are read and pushed in parts, so that compute can start on the first part before the others have arrived.
//
// Budget: transaction ids 1 to 10 of 15 (4 parts of the first group, 4 of gamma and beta, 2 groups).
#include <cstdint>

#include "api/dataflow/dataflow_api.h"
#include "agreement.h"

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t cb_gamma = get_named_compile_time_arg_val("cb_gamma");
constexpr uint32_t cb_beta = get_named_compile_time_arg_val("cb_beta");
constexpr bool has_gamma = get_named_compile_time_arg_val("has_gamma");
constexpr bool has_beta = get_named_compile_time_arg_val("has_beta");
constexpr uint32_t input_piece = get_named_compile_time_arg_val("input_piece");  // bytes
constexpr uint32_t gamma_piece = get_named_compile_time_arg_val("gamma_piece");
constexpr uint32_t beta_piece = get_named_compile_time_arg_val("beta_piece");
constexpr uint32_t ring_groups = get_named_compile_time_arg_val("ring_groups");  // that cb_input holds
constexpr uint32_t groups_in_flight = get_named_compile_time_arg_val("groups_in_flight");

constexpr uint32_t group_rows = get_named_compile_time_arg_val("group_rows");
constexpr uint32_t max_parts = 4;
constexpr uint32_t input_trid = 1, weights_trid = input_trid + max_parts, group_trid = weights_trid + max_parts;
static_assert(group_trid + groups_in_flight - 1 <= NOC_MAX_TRANSACTION_ID, "budget of transaction ids");
static_assert(group_rows <= max_parts, "the first group's rows are read under the transaction ids of its parts");

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

// Zeros from the 32-byte boundary before `size` to the end of each of `count` rows: NoC reads want aligned addresses. The
// bytes of x that are zeroed with them are read afterwards, hence the barrier.
void zero_padding(uint32_t address, uint32_t count, uint32_t size, uint32_t row_size) {
    const uint64_t zeros = get_noc_addr(MEM_ZEROS_BASE);
    for (uint32_t row = 0; row < count; ++row) {
        for (uint32_t at = size & ~31; at < row_size; at += MEM_ZEROS_SIZE) {
            const uint32_t left = row_size - at;
            noc_async_read(zeros, address + row * row_size + at, left < MEM_ZEROS_SIZE ? left : MEM_ZEROS_SIZE);
        }
    }
    noc_async_read_barrier();
}

void kernel_main() {
    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t steps = RUNTIME_ARG(steps);
    const uint32_t input_stick = RUNTIME_ARG(input_stick);
    const uint32_t gamma_stick = RUNTIME_ARG(gamma_stick);
    const uint32_t beta_stick = RUNTIME_ARG(beta_stick);

    constexpr auto input_args = TensorAccessorArgs<0>();
    constexpr auto gamma_args = TensorAccessorArgs<input_args.next_compile_time_args_offset()>();
    constexpr auto beta_args = TensorAccessorArgs<gamma_args.next_compile_time_args_offset()>();
    const auto input = TensorAccessor(input_args, RUNTIME_ARG(input_address), input_stick);
    const auto gamma = TensorAccessor(gamma_args, RUNTIME_ARG(gamma_address), gamma_stick);
    const auto beta = TensorAccessor(beta_args, RUNTIME_ARG(beta_address), beta_stick);

    const uint32_t row_size = steps * input_piece;
    const uint32_t input_l1 = get_write_ptr(cb_input);
    const uint32_t first_rows = rows < group_rows ? rows : group_rows;

    ASSERT(rows > 0);
    ASSERT(input_stick <= row_size && input_stick + input_piece > row_size);
    assert_cb(cb_input, ring_groups * group_rows * steps, input_piece);
    if constexpr (has_gamma) {
        ASSERT(gamma_stick <= steps * gamma_piece);
        assert_cb(cb_gamma, steps, gamma_piece);
    }
    if constexpr (has_beta) {
        ASSERT(beta_stick <= steps * beta_piece);
        assert_cb(cb_beta, steps, beta_piece);
    }

    // Once for each place of a row in the ring: later reads are as long as a stick and leave the padding as it is.
    if (input_stick != row_size) {
        zero_padding(input_l1, rows < ring_groups * group_rows ? rows : ring_groups * group_rows, input_stick, row_size);
    }

    // No room is reserved for the first group, gamma and beta: the CBs are empty when a launch starts.
    const uint32_t part_pieces = (steps + max_parts - 1) / max_parts;
    const uint32_t parts = (steps + part_pieces - 1) / part_pieces;
    if constexpr (group_rows == 1) {
        Stick stick{input.get_noc_addr(0), input_l1, input_stick};
        for (uint32_t part = 0; part < parts; ++part) {
            noc_async_read_set_trid(input_trid + part);
            stick.read(part_pieces * input_piece);
        }
    } else {
        for (uint32_t row = 0; row < first_rows; ++row) {
            noc_async_read_set_trid(input_trid + row);
            noc_async_read(input.get_noc_addr(row), input_l1 + row * row_size, input_stick);
        }
    }
    Stick gamma_left{has_gamma ? gamma.get_noc_addr(0) : 0, get_write_ptr(cb_gamma), gamma_stick};
    Stick beta_left{has_beta ? beta.get_noc_addr(0) : 0, get_write_ptr(cb_beta), beta_stick};
    for (uint32_t part = 0; part < parts; ++part) {
        noc_async_read_set_trid(weights_trid + part);
        if constexpr (has_gamma) {
            gamma_left.read(part_pieces * gamma_piece);
        }
        if constexpr (has_beta) {
            beta_left.read(part_pieces * beta_piece);
        }
    }
    const auto push_parts = [&](uint32_t trid, auto push) __attribute__((always_inline)) {
        for (uint32_t part = 0, left = steps; part < parts; ++part, left -= part_pieces) {
            noc_async_read_barrier_with_trid(trid + part);
            push(left < part_pieces ? left : part_pieces);
        }
    };
    if constexpr (group_rows == 1) {
        push_parts(input_trid, [](uint32_t pages) { cb_push_back(cb_input, pages); });
    } else {
        for (uint32_t row = 0; row < first_rows; ++row) {
            noc_async_read_barrier_with_trid(input_trid + row);
            cb_push_back(cb_input, steps);
        }
    }

    uint32_t issued = first_rows, pushed = first_rows;  // rows
    uint32_t issued_l1 = input_l1 + group_rows * row_size;
    const uint32_t end_l1 = input_l1 + ring_groups * group_rows * row_size;
    uint32_t issue_trid = 0, push_trid = 0;

    const auto issue_group = [&]() __attribute__((always_inline)) {
        if (issued >= rows) {
            return;
        }
        const uint32_t end = issued + group_rows < rows ? issued + group_rows : rows;
        cb_reserve_back(cb_input, (end - pushed) * steps);  // counts from the last push: groups in flight are among them
        noc_async_read_set_trid(group_trid + issue_trid);
        issue_trid = issue_trid + 1 == groups_in_flight ? 0 : issue_trid + 1;
        uint32_t address = issued_l1;
        for (; issued < end; ++issued) {
            noc_async_read(input.get_noc_addr(issued), address, input_stick);
            address += row_size;
        }
        issued_l1 = address == end_l1 ? input_l1 : address;
    };

    issue_group();
    push_parts(weights_trid, [](uint32_t pages) {
        if constexpr (has_gamma) {
            cb_push_back(cb_gamma, pages);
        }
        if constexpr (has_beta) {
            cb_push_back(cb_beta, pages);
        }
    });
    while (pushed < rows) {
        issue_group();
        noc_async_read_barrier_with_trid(group_trid + push_trid);
        push_trid = push_trid + 1 == groups_in_flight ? 0 : push_trid + 1;
        const uint32_t end = pushed + group_rows < rows ? pushed + group_rows : rows;
        cb_push_back(cb_input, (end - pushed) * steps);
        pushed = end;
    }
    noc_async_read_set_trid(0);
}
