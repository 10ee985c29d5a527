# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A decoder block with its norms on the device beside HuggingFace's: what is recorded, how it is judged and shown."""
