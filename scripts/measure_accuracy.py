#!/usr/bin/env python3
from commands.measure_accuracy import run

run()
