// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What host and kernels agree on.
//
// Runtime arguments by name: the host passes the position of `name` as the compile-time argument `arg_<name>`. Its
// constant keeps the search for it out of the kernel, which would otherwise compare strings for a thousand cycles.
#pragma once

#include <type_traits>

#include "api/debug/assert.h"

#define ARG_POSITION(name) std::integral_constant<uint32_t, get_named_compile_time_arg_val("arg_" #name)>::value
#define RUNTIME_ARG(name) get_arg_val<uint32_t>(ARG_POSITION(name))

// Asserts cost nothing unless the device was opened with them (`kernel_asserts`).
inline void assert_cb([[maybe_unused]] uint32_t cb, [[maybe_unused]] uint32_t pages, [[maybe_unused]] uint32_t page_bytes) {
    ASSERT(get_local_cb_interface(cb).fifo_page_size << cb_addr_shift == page_bytes);
    ASSERT(get_local_cb_interface(cb).fifo_size << cb_addr_shift == pages * page_bytes);
}
