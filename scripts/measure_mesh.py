#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
from commands.measure_mesh import run

run()
