# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
# What SFPI's build of an active ethernet core's firmware has first in its .sbss (riscv-tt-elf-g++, ahead_of_firmware).
    .section .sbss, "aw", @nobits
    .balign 4
    .skip 8
