"""The figures of `bench_corpus` as a table."""

from collections.abc import Callable, Mapping, Sequence

from timing import machine_line, spread

STEPS = 50  # of a turn

Cell = Callable[[int], str]  # of a size


def relative_steps(steps: Mapping[str, Mapping], size: int, base: int) -> list[float]:
    """The time of a step per padded token relative to another corpus, for each round."""
    paces = [[turn["seconds"] / turn["tokens"] for turn in steps[str(of)]["rounds"]] for of in (size, base)]
    return [one / other for one, other in zip(*paces, strict=True)]


def table(figures: Mapping, sizes: Sequence[int]) -> str:
    """All figures in Markdown, a column for each size."""
    cells = {
        **_of_encoding(figures["encode"]),
        **_of_starts(figures["start"]),
        **_of_steps(figures["steps"], sizes[0]),
        "making a batch, ms": lambda size: f"{1000 * figures['batches'][str(size)]:.2f}",
    }
    lines = [
        f"{machine_line(figures)}; median (least-most)",
        "",
        f"| reviews | {' | '.join(f'{size:,}' for size in sizes)} |",
        "| --- " * (len(sizes) + 1) + "|",
        *(f"| {name} | {' | '.join(cell(size) for size in sizes)} |" for name, cell in cells.items()),
    ]
    return "\n".join(lines)


def _of_encoding(encoded: Mapping[str, Mapping]) -> dict[str, Cell]:
    def of(form: str) -> Cell:
        return lambda size: form.format(**encoded[str(size)])

    memory = "{peak_mib_before:.0f}, {peak_mib_counting:.0f}, {peak_mib_encoding:.0f}"
    return {
        "counted, reviews per second": of("{counted_per_second:,.0f}"),
        "encoded, reviews per second": of("{encoded_per_second:,.0f}"),
        "peak memory: before, counting, encoding, MiB": of(memory),
        "text on disk, MB": lambda size: f"{encoded[str(size)]['text_bytes'] / 1e6:,.0f}",
        "store on disk, MB": lambda size: f"{encoded[str(size)]['store_bytes'] / 1e6:,.1f}",
        "store, bytes per review": lambda size: f"{encoded[str(size)]['store_bytes'] / size:.0f}",
    }


def _of_starts(starts: Mapping[str, Sequence[Mapping]]) -> dict[str, Cell]:
    def of(name: str) -> Cell:
        return lambda size: spread([start[name] for start in starts[str(size)]])

    return {
        "start to first step, s": of("new"),
        "resume to first step, s": of("resumed"),
        "a save, bytes": lambda size: f"{starts[str(size)][0]['save_bytes']:,}",
    }


def _of_steps(steps: Mapping[str, Mapping], base: int) -> dict[str, Cell]:
    def milliseconds(size: int) -> float:
        rounds = steps[str(size)]["rounds"]
        return 1000 * sum(turn["seconds"] for turn in rounds) / (STEPS * len(rounds))

    def of(name: str) -> Cell:
        return lambda size: spread([turn[name] for turn in steps[str(size)]["rounds"]])

    return {
        "a step, ms": lambda size: f"{milliseconds(size):.1f}",
        "steps per second": lambda size: f"{1000 / milliseconds(size):.1f}",
        f"a step per padded token, relative to {base:,}": lambda size: spread(
            relative_steps(steps, size, base), digits=3
        ),
        "resident memory, anonymous, MiB": of("RssAnon"),
        "resident memory, of files, MiB": of("RssFile"),
        "a save, ms": lambda size: f"{1000 * steps[str(size)]['save_seconds']:.0f}",
    }
