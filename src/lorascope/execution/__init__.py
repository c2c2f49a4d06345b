"""Running a sweep: slots, packs, child processes, stop requests; the base that is scored."""
