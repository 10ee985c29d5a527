// Runtime arguments by name: the host passes the position of `name` as the compile-time argument `arg_<name>`.
#pragma once

#define RUNTIME_ARG(name) get_arg_val<uint32_t>(get_named_compile_time_arg_val("arg_" #name))
