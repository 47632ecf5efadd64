"""Judges what was heard of each case; where a deviation is known, that it is still that one."""

import sys


def judge(cases, known, last):
    """Ends the program. `cases`: name, what was heard, and whether that is as it should be; `last` is asked after all of them."""
    failed, count = [], 0
    for name, heard, good in cases:
        count += 1
        deviates = known.get(name)
        if deviates and good(heard):
            failed.append(f"{name}: the deviation is gone, take it out of the list: {heard[:5]}")
        elif deviates and not deviates(heard):
            failed.append(f"{name}: deviates in another way: {heard[:5]}")
        elif not deviates and not good(heard):
            failed.append(f"{name}: {heard[:5]}")
    print(f"{count - len(failed)} of {count} cases, {len(known)} of them known deviations")
    name, heard, good = last()
    if not good(heard):
        failed.append(f"after all, {name}: {heard}")
    print("\n".join(failed))
    sys.exit(1 if failed else 0)
