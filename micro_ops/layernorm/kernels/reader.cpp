// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Reader (NCRISC): row-major sticks from DRAM into L1; and gamma and beta, where cores send them to one another.
//
// CB contract, in pages of one piece (compute.cpp):
//   pushes  cb_input           `steps` a row: the rows, each padded with zeros to whole pieces                    -> compute
//   pushes  cb_gamma, cb_beta  `own_steps` once, of this core's columns, not padded (else writer.cpp does)        -> compute
//
// x is padded, because the padding would reach the sums.
//
// The reads of two groups are in flight, each group's under a transaction id of its own. The first group comes in parts:
// its rows, or parts of its only row.
//
// Between cores: gamma, beta, and a row that several cores share, are read from DRAM by one of them, the sender, which
// multicasts each part to the same place in the others' L1, and then how many parts it has sent, into the operand's
// semaphore there. The two arrive in this order, because they leave by one command buffer and one virtual channel. Nobody
// waits for room: these parts are the first to be written to their CBs, which are empty when a launch starts.
//
// Budget: transaction ids 1 to 10 of 15 (4 parts of the first group, 4 of gamma and beta, 2 groups); program semaphores
// 0 to 6 of 16 (parts that have arrived of each operand; the numbers 1 to 4, to be sent).
#include "sticks.h"

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t input_piece = get_named_compile_time_arg_val("input_piece");  // bytes
constexpr uint32_t ring_groups = get_named_compile_time_arg_val("ring_groups");  // that cb_input holds
constexpr uint32_t groups_in_flight = get_named_compile_time_arg_val("groups_in_flight");
constexpr uint32_t group_rows = get_named_compile_time_arg_val("group_rows");

// Whether some cores of the plan send rows, or gamma and beta, to others.
constexpr bool exchanges_input = get_named_compile_time_arg_val("exchanges_input");
constexpr bool exchanges_weights = get_named_compile_time_arg_val("exchanges_weights");
static_assert(reader_reads_weights || !exchanges_weights, "it is the reader that sends gamma and beta");
constexpr bool reads_weights = reader_reads_weights && (has_gamma || has_beta);
constexpr uint32_t input_semaphore = get_named_compile_time_arg_val("input_semaphore");
constexpr uint32_t gamma_semaphore = get_named_compile_time_arg_val("gamma_semaphore");
constexpr uint32_t beta_semaphore = get_named_compile_time_arg_val("beta_semaphore");
constexpr uint32_t counts = get_named_compile_time_arg_val("counts");  // the first of the semaphores that hold 1, 2, ...
constexpr uint32_t max_rectangles = get_named_compile_time_arg_val("max_rectangles");

constexpr uint32_t input_trid = 1, weights_trid = input_trid + max_parts, group_trid = weights_trid + max_parts;
static_assert(group_trid + groups_in_flight - 1 <= NOC_MAX_TRANSACTION_ID, "budget of transaction ids");
static_assert(group_rows <= max_parts, "the first group's rows are read under the transaction ids of its parts");

// Cores that this one sends to: a rectangle with nothing else in it.
struct Rectangle {
    uint64_t noc;  // as get_noc_multicast_addr makes it, of address 0
    uint32_t cores;
};

// Writes `size` bytes from `data` on to the same place of each core, and then `count` to their semaphore. Packet by packet,
// since the compiler makes a hundred instructions of the call that takes any size.
__attribute__((always_inline)) inline void multicast(
    const Rectangle* to, const Rectangle* end, uint32_t data, uint32_t size, uint32_t count, uint32_t semaphore) {
    for (; size > NOC_MAX_BURST_SIZE; data += NOC_MAX_BURST_SIZE, size -= NOC_MAX_BURST_SIZE) {
        for (const Rectangle* r = to; r != end; ++r) {
            noc_async_write_multicast_one_packet(data, r->noc | data, NOC_MAX_BURST_SIZE, r->cores);
        }
    }
    for (const Rectangle* r = to; r != end; ++r) {
        noc_async_write_multicast_one_packet(data, r->noc | data, size, r->cores);
        noc_async_write_multicast_one_packet(
            get_semaphore(counts + count - 1), r->noc | semaphore, sizeof(uint32_t), r->cores);
    }
}

// An operand's first parts on their way to compute: read from DRAM by this core, or received; and sent on, if others wait
// for them.
template <uint32_t cb, uint32_t semaphore_id, uint32_t first_trid, uint32_t page_size, bool exchanges>
struct Arriving {
    uint32_t pages, part_pages;  // left, and of a part
    bool is_received;
    const Rectangle *to, *end;  // where to send to
    uint32_t part = 0;

    // Whether there is a next part, and it is in L1.
    __attribute__((always_inline)) bool has_arrived() const {
        if (pages == 0) {
            return false;
        }
        if (is_received) {
            invalidate_l1_cache();
            return *reinterpret_cast<volatile tt_l1_ptr uint32_t*>(get_semaphore(semaphore_id)) > part;
        }
        return ncrisc_noc_read_with_transaction_id_flushed(noc_index, first_trid + part);
    }

    // Waits for the next part, sends it on, and pushes it.
    __attribute__((always_inline)) void push() {
        const uint32_t count = pages < part_pages ? pages : part_pages;
        if (exchanges && is_received) {
            noc_semaphore_wait_min(reinterpret_cast<volatile tt_l1_ptr uint32_t*>(get_semaphore(semaphore_id)), part + 1);
        } else {
            noc_async_read_barrier_with_trid(first_trid + part);
            if (exchanges && to != end) {
                // The CB's write pointer is at this part, since those before have been pushed.
                multicast(to, end, get_write_ptr(cb), count * page_size, part + 1, get_semaphore(semaphore_id));
            }
        }
        cb_push_back(cb, count);
        pages -= count;
        ++part;
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
    const uint32_t first_row = RUNTIME_ARG(first_row);
    const uint32_t group_stride = RUNTIME_ARG(group_stride);  // rows from the first of a group to the first of the next
    // Whether each operand is received; to how many rectangles it is sent
    const uint32_t exchange = exchanges_input || exchanges_weights ? RUNTIME_ARG(exchange) : 0;
    const bool input_is_received = exchanges_input && (exchange & 1);

    constexpr auto input_args = TensorAccessorArgs<0>();
    const auto input = TensorAccessor(input_args, RUNTIME_ARG(input_address), input_stick);

    const uint32_t row_size = steps * input_piece;
    const uint32_t input_l1 = get_write_ptr(cb_input);
    const uint32_t first_rows = rows < group_rows ? rows : group_rows;

    ASSERT(rows > 0);
    ASSERT(input_stick <= row_size && input_stick + input_piece > row_size);
    assert_cb(cb_input, ring_groups * group_rows * steps, input_piece);

    // Once for each place of a row in the ring: later reads are as long as a stick and leave the padding as it is. A row
    // that is received comes with its padding.
    if (input_stick != row_size && !input_is_received) {
        zero_padding(input_l1, rows < ring_groups * group_rows ? rows : ring_groups * group_rows, input_stick, row_size);
    }

    // No room is reserved for the first group, gamma and beta: the CBs are empty when a launch starts.
    const uint32_t input_part_pages = group_rows == 1 ? (steps + max_parts - 1) / max_parts : steps;
    if constexpr (group_rows == 1) {
        if (!input_is_received) {
            Stick stick{input.get_noc_addr(first_row), input_l1, input_stick};
            for_each_part(steps, input_part_pages, [&](uint32_t part, uint32_t) __attribute__((always_inline)) {
                noc_async_read_set_trid(input_trid + part);
                stick.read(input_part_pages * input_piece);
            });
        }
    } else {
        for (uint32_t row = 0; row < first_rows; ++row) {
            noc_async_read_set_trid(input_trid + row);
            noc_async_read(input.get_noc_addr(first_row + row), input_l1 + row * row_size, input_stick);
        }
    }

    Rectangle rectangles[max_rectangles];
    const Rectangle* const gamma_to = rectangles + (exchange >> 8 & 0xff);  // behind those of the input
    const Rectangle* const beta_to = gamma_to + (exchange >> 16 & 0xff);
    const Rectangle* const end = beta_to + (exchange >> 24);
    uint32_t argument = ARG_POSITION(rectangles);
    for (Rectangle* r = rectangles; r != end; ++r) {
        const uint32_t corners = get_arg_val<uint32_t>(argument++);
        r->noc = get_noc_multicast_addr(corners & 0xff, corners >> 8 & 0xff, corners >> 16 & 0xff, corners >> 24, 0);
        r->cores = get_arg_val<uint32_t>(argument++);
    }

    const uint32_t own_steps = reads_weights ? RUNTIME_ARG(own_steps) : 0;
    const uint32_t weight_part_pages = (own_steps + max_parts - 1) / max_parts;
    Arriving<cb_input, input_semaphore, input_trid, input_piece, exchanges_input> arriving_input{
        first_rows * steps, input_part_pages, input_is_received, rectangles, gamma_to};
    Arriving<cb_gamma, gamma_semaphore, weights_trid, gamma_piece, exchanges_weights> arriving_gamma{
        has_gamma ? own_steps : 0, weight_part_pages, (exchange & 2) != 0, gamma_to, beta_to};
    Arriving<cb_beta, beta_semaphore, weights_trid, beta_piece, exchanges_weights> arriving_beta{
        has_beta ? own_steps : 0, weight_part_pages, (exchange & 4) != 0, beta_to, end};
    if constexpr (reads_weights) {
        constexpr auto gamma_args = TensorAccessorArgs<input_args.next_compile_time_args_offset()>();
        constexpr auto beta_args = TensorAccessorArgs<gamma_args.next_compile_time_args_offset()>();
        read_weights<weights_trid>(
            gamma_args, beta_args, RUNTIME_ARG(gamma_address), RUNTIME_ARG(beta_address), RUNTIME_ARG(first_step),
            own_steps, RUNTIME_ARG(own_columns), weight_part_pages, !arriving_gamma.is_received,
            !arriving_beta.is_received);
    }

    uint32_t issued = first_rows, pushed = first_rows;  // rows
    uint32_t issued_row = first_row + group_stride;
    uint32_t issued_l1 = input_l1 + group_rows * row_size;
    const uint32_t end_l1 = input_l1 + ring_groups * group_rows * row_size;
    uint32_t issue_trid = 0, push_trid = 0;

    const auto issue_group = [&]() __attribute__((always_inline)) {
        if (issued >= rows) {
            return;
        }
        const uint32_t count = rows - issued < group_rows ? rows - issued : group_rows;
        issued += count;
        cb_reserve_back(cb_input, (issued - pushed) * steps);  // counts from the last push: groups in flight are among them
        noc_async_read_set_trid(group_trid + issue_trid);
        issue_trid = issue_trid + 1 == groups_in_flight ? 0 : issue_trid + 1;
        uint32_t address = issued_l1;
        for (uint32_t row = 0; row < count; ++row) {
            noc_async_read(input.get_noc_addr(issued_row + row), address, input_stick);
            address += row_size;
        }
        issued_row += group_stride;
        issued_l1 = address == end_l1 ? input_l1 : address;
    };

    if constexpr (exchanges_weights) {
        // In whatever order they arrive: others wait for what this core sends, whose own rows may be late.
        while (arriving_input.pages != 0 || arriving_gamma.pages != 0 || arriving_beta.pages != 0) {
            if (arriving_gamma.has_arrived()) {
                arriving_gamma.push();
            }
            if (arriving_beta.has_arrived()) {
                arriving_beta.push();
            }
            if (arriving_input.has_arrived()) {
                arriving_input.push();
                if (arriving_input.pages == 0) {
                    issue_group();
                }
            }
        }
    } else {
        while (arriving_input.pages != 0) {
            arriving_input.push();
        }
        issue_group();
        while (arriving_gamma.pages != 0 || arriving_beta.pages != 0) {
            if constexpr (has_gamma) {
                arriving_gamma.push();
            }
            if constexpr (has_beta) {
                arriving_beta.push();
            }
        }
    }
    while (pushed < rows) {
        issue_group();
        noc_async_read_barrier_with_trid(group_trid + push_trid);
        push_trid = push_trid + 1 == groups_in_flight ? 0 : push_trid + 1;
        const uint32_t end = pushed + group_rows < rows ? pushed + group_rows : rows;
        cb_push_back(cb_input, (end - pushed) * steps);
        pushed = end;
    }
    noc_async_read_set_trid(0);
    noc_async_write_barrier();  // of the multicasts
}
