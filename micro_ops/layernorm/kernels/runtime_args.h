// Runtime arguments by name: the host passes the position of `name` as the compile-time argument `arg_<name>`. Its
// constant keeps the search for it out of the kernel, which would otherwise compare strings for a thousand cycles.
#pragma once

#include <type_traits>

#define RUNTIME_ARG(name) \
    get_arg_val<uint32_t>(std::integral_constant<uint32_t, get_named_compile_time_arg_val("arg_" #name)>::value)
