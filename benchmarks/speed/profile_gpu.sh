#!/usr/bin/env bash
# The hardware's counters for one launch of each main kind of batch; the clocks stay as they are.
set -u
cd "$(dirname "$0")/../.."
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"

metrics=(
  gpu__time_duration.sum
  dram__bytes_read.sum
  dram__bytes_write.sum
  dram__throughput.avg.pct_of_peak_sustained_elapsed
  lts__t_sector_hit_rate.pct
  sm__inst_issued.avg.pct_of_peak_sustained_active
  sm__warps_active.avg.pct_of_peak_sustained_active
  launch__registers_per_thread
)
ncu --clock-control none --kernel-name mix --metrics "$(IFS=,; echo "${metrics[*]}")" \
  python3 -m benchmarks.speed.launch_each "${1:-256}" "${2:-224}"
