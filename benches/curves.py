"""Curves over generations and disk sizes, and the time to a first file beside other programs. Started by benches/curves."""
import argparse
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

options = argparse.ArgumentParser(prog="benches/curves")
options.add_argument("hikae")
options.add_argument("--runs", type=int, default=7)
options.add_argument("--generations", default="1,10,100,1000")
options.add_argument("--sizes", default="1G,16G,256G,1T,10T")
options.add_argument("--ntfs", type=int, default=512, help="MiB of the disk that other programs show too")
options.add_argument("--folder", default="target/bench/curves")
options.add_argument("--report", default="target/bench/report")
options = options.parse_args()
hikae = options.hikae
top = os.getcwd()
report = os.path.realpath(options.report)
os.makedirs(report, exist_ok=True)
shutil.rmtree(options.folder, ignore_errors=True)
os.makedirs(f"{options.folder}/mnt")
os.chdir(options.folder)
random.seed(1)

# Bytes of the files that every disk has.
PAGES, FIRST, PAGE = 4 << 20, 1 << 20, 4096
text = []


def say(line=""):
    text.append(line)
    print(line, flush=True)


def call(*args):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL)


def hikae_runs(*args):
    """Runs hikae to its end. Returns wall seconds, processor seconds, and its most memory in MiB."""
    begun = time.perf_counter()
    pid = os.posix_spawn(hikae, [hikae, *args], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
    _, status, used = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"hikae {' '.join(args)} failed")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def median_ms(work):
    times = []
    for number in range(options.runs + 1):
        taken = work()
        if number:
            times.append(taken)
    return statistics.median(times) * 1000


def ends(pid):
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.002)


def mounted(image, inside):
    """From an image at rest to the names of a folder and to a file of 1 MiB: seconds of both, and the server's most memory in MiB."""
    begun = time.perf_counter()
    subprocess.run([hikae, "mount", image, "mnt"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert "first" in os.listdir(f"mnt/{inside}")
    listed = time.perf_counter() - begun
    with open(f"mnt/{inside}/first", "rb") as file:
        assert len(file.read()) == FIRST
    read = time.perf_counter() - begun
    # Whoever has the mount open.
    pids = subprocess.run(["pgrep", "-f", f"{hikae} mount {image} mnt"], stdout=subprocess.PIPE, text=True).stdout.split()
    status = open(f"/proc/{pids[0]}/status").read()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
    call(hikae, "umount", "mnt")
    ends(pids[0])
    return listed, read, peak


def mount_figures(image, inside):
    peaks, reads = [], []

    def work():
        listed, read, peak = mounted(image, inside)
        peaks.append(peak)
        reads.append(read)
        return listed

    listed = median_ms(work)
    return listed, statistics.median(reads[1:]) * 1000, max(peaks)


def make_tree():
    shutil.rmtree("tree", ignore_errors=True)
    os.makedirs("tree/many")
    for number in range(500):
        with open(f"tree/many/note-{number}", "w") as note:
            note.write(f"note {number}\n" * 20)
    with open("tree/first", "wb") as first:
        first.write(random.randbytes(FIRST))
    with open("tree/pages", "wb") as pages:
        pages.write(random.randbytes(PAGES))


def make_disk(name, size):
    """A disk that is one ext4 filesystem with the tree in it, without a partition table."""
    if os.path.exists(name):
        os.remove(name)
    call("truncate", "-s", size, name)
    few = ["-N", "4096", "-J", "size=4", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]
    call("mke2fs", "-q", "-F", "-t", "ext4", *few, "-d", "tree", name)


def size_of(name):
    return sum(os.stat(file).st_size for file in os.listdir(".") if file.startswith(name) and ".hik" in file)


def plot(file, title, unit, labels, curves, logarithmic=False):
    """Curves over the same labels, in equal steps."""
    left, right, bottom, height = 60, 600, 260, 210
    values = [value for _, curve in curves for value in curve]
    if logarithmic:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        ticks = [10**power for power in range(low, high + 1)]
        part = lambda value: (math.log10(value) - low) / max(1, high - low)
    else:
        step = 10 ** math.floor(math.log10(max(values)))
        step = step / 2 if max(values) / step < 3 else step
        ticks = [step * number for number in range(math.ceil(max(values) / step) + 1)]
        part = lambda value: value / ticks[-1]
    x = lambda at: left + at * (right - left) / max(1, len(labels) - 1)
    y = lambda value: bottom - height * part(value)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 300" font-family="sans-serif" font-size="12">',
           '<rect width="820" height="300" fill="#fff"/>', f'<text x="10" y="22" font-size="15" font-weight="bold">{title}, {unit}</text>']
    for tick in ticks:
        out.append(f'<path d="M{left} {y(tick):.1f}H{right}" stroke="#ddd"/><text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#555">{tick:g}</text>')
    for at, label in enumerate(labels):
        out.append(f'<text x="{x(at):.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555">{label}</text>')
    taken = []
    for (name, curve), colour, dash in zip(curves, ["#0b6e4f", "#b4561f", "#54708c", "#7a3f9d", "#8a7a00"], ["", "7 3", "2 3", "9 3 2 3", "1 2"]):
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(curve))
        at = y(curve[-1]) + 4
        while any(abs(at - other) < 14 for other in taken):
            at -= 14
        taken.append(at)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
                   f'<text x="{right + 8}" y="{at:.1f}" fill="{colour}">{name}</text>')
    with open(f"{report}/{file}.svg", "w") as svg:
        svg.write("\n".join([*out, "</svg>\n"]))


def over_generations():
    counts = [int(count) for count in options.generations.split(",")]
    make_disk("history.raw", "32M")
    with open("history.raw", "rb") as disk, open("tree/pages", "rb") as pages:
        whole, content = disk.read(), pages.read()
        places = [whole.find(content[at:at + PAGE]) for at in range(0, PAGES, PAGE)]
    assert -1 not in places, "the pages of the file lie in the disk"
    say(f"### {counts[0]} to {counts[-1]} generations of a disk of 32 MiB, one page changed each time\n")
    say("| generations | image MiB | `list` ms | `ls` of the first ms | `ls` of the latest ms | mount to listing of the first ms | of the latest ms | to 1 MiB of the latest ms | capture of the next ms | peak MiB of capture | of the mount |")
    say("|--:|" + "--:|" * 10)
    made, rows = 0, []
    for wanted in counts:
        while made < wanted:
            with open("history.raw", "r+b") as disk:
                disk.seek(random.choice(places))
                disk.write(random.randbytes(PAGE))
            took = hikae_runs("capture", "history.raw", "history.hik")
            made += 1
        first, _, _ = mount_figures("history.hik@1", "p1")
        latest, read, peak = mount_figures("history.hik", "latest/p1")
        row = [median_ms(lambda: hikae_runs("list", "history.hik")[0]),
               median_ms(lambda: hikae_runs("ls", "history.hik@1:/p1")[0]),
               median_ms(lambda: hikae_runs("ls", "history.hik:/p1")[0]), first, latest, read, took[0] * 1000]
        rows.append([*row, took[2], peak])
        say(f"| {wanted} | {size_of('history') / 1048576:.1f} | " + " | ".join(f"{value:.1f}" for value in rows[-1]) + " |")
    say()
    names = ["list", "ls of the first", "ls of the latest", "mount to listing", "mount to 1 MiB"]
    picked = [[row[at] for row in rows] for at in (0, 1, 2, 4, 5)]
    plot("generations", "Opening, over generations", "ms", counts, list(zip(names, picked)))


def over_sizes():
    sizes = options.sizes.split(",")
    say(f"### Sparse disks of {sizes[0]} to {sizes[-1]}, one ext4 filesystem with 5 MiB of files\n")
    say("| size | written MiB | image MiB | capture s (CPU s) | again s (CPU s) | peak MiB of capture | `ls` ms | mount to listing ms | to 1 MiB ms | peak MiB of the mount |")
    say("|--:|" + "--:|" * 9)
    rows = []
    for size in sizes:
        make_disk("sparse.raw", size)
        written = os.stat("sparse.raw").st_blocks * 512 / 1048576
        first = hikae_runs("capture", "sparse.raw", "sparse.hik")
        again = hikae_runs("capture", "sparse.raw", "sparse.hik")
        listed = median_ms(lambda: hikae_runs("ls", "sparse.hik:/p1")[0])
        mount, read, peak = mount_figures("sparse.hik@latest", "p1")
        memory = max(first[2], again[2])
        rows.append([listed, mount, read, memory, peak])
        say(f"| {size} | {written:.0f} | {size_of('sparse') / 1048576:.1f} | {first[0]:.2f} ({first[1]:.2f}) | {again[0]:.2f} ({again[1]:.2f}) | {memory:.0f} | "
            f"{listed:.1f} | {mount:.1f} | {read:.1f} | {peak:.0f} |")
        os.remove("sparse.raw")
        for file in [file for file in os.listdir(".") if file.startswith("sparse")]:
            os.remove(file)
    say()
    plot("sizes", "Opening, over the size of the disk", "ms", sizes, [(name, [row[at] for row in rows]) for at, name in enumerate(["ls", "mount to listing", "mount to 1 MiB"])])
    plot("memory", "Most memory, over the size of the disk", "MiB", sizes, [("capture", [row[3] for row in rows]), ("mount", [row[4] for row in rows])])


def beside_others():
    """From an image at rest to names in an NTFS partition and a file in it, through a server of each kind that is started anew."""
    size = options.ntfs
    subprocess.run([f"{top}/benches/make-disk", "ntfs", str(size), ".."], check=True)
    disk = os.path.realpath(f"../ntfs-{size}.raw")
    call(hikae, "capture", disk, "disk.hik")
    folder = os.getcwd()
    os.environ.update(RESTIC_PASSWORD="bench", BORG_BASE_DIR=folder, HOME=folder, BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes")
    call("qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", disk, "disk.qcow2")
    call("restic", "-q", "init", "-r", "restic")
    call("restic", "-q", "-r", "restic", "backup", disk)
    call("borg", "init", "-e", "none", "borg")
    call("borg", "create", "--compression", "zstd,3", "--chunker-params", "fixed,65536", "borg::a", disk)
    # The format of xmount's world knows deflate only.
    with open(disk, "rb") as whole:
        subprocess.run(["ewfacquirestream", "-q", "-c", "fast", "-S", "1TiB", "-B", str(os.stat(disk).st_size), "-f", "encase6", "-t", "disk"], stdin=whole,
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.makedirs("in", exist_ok=True)
    open("export", "w").close()
    servers = {
        "the raw disk": ([], disk, None),
        "qemu-storage-daemon, zstd qcow2": (["qemu-storage-daemon", "--blockdev", "driver=file,node-name=f,filename=disk.qcow2,read-only=on", "--blockdev",
                                             "driver=qcow2,node-name=q,file=f,read-only=on", "--export", "type=fuse,id=e,node-name=q,mountpoint=export,writable=off"],
                                            "export", "export"),
        "borg mount": (["borg", "mount", "-f", "borg::a", "mnt"], f"mnt{disk}", "mnt"),
        "xmount, EWF": (["xmount", "--in", "ewf", "disk.E01", "mnt"], "mnt/disk.dd", "mnt"),
        "restic mount": (["restic", "-q", "-r", "restic", "mount", "--no-lock", "mnt"], f"mnt/snapshots/latest{disk}", "mnt"),
    }
    # A file of about 1 MiB, wherever it lies.
    call(hikae, "mount", "disk.hik@latest", "mnt")
    files = (os.path.join(parent, name) for parent, _, names in os.walk("mnt/p1/usr") for name in names)
    path = next(file for file in files if 900 << 10 <= os.stat(file).st_size <= 1200 << 10).removeprefix("mnt/p1/")
    call(hikae, "umount", "mnt")

    def through_ntfs_3g(args, shown, waits):
        begun = time.perf_counter()
        server = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) if args else None
        while server and not (os.path.exists(shown) and os.path.getsize(shown) > 0):
            # xmount goes on in the background.
            assert server.poll() in (None, 0) and time.perf_counter() < begun + 60, f"{args[0]} shows nothing"
            time.sleep(0.002)
        loop = subprocess.run(["losetup", "--show", "-r", "-f", "-o", "1048576", shown], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        call("ntfs-3g", "-o", "ro", loop, "in")
        names = os.listdir("in/usr")
        listed = time.perf_counter() - begun
        with open(f"in/{path}", "rb") as file:
            read = len(file.read())
        taken = time.perf_counter() - begun
        call("umount", "in")
        call("losetup", "-d", loop)
        if server:
            if waits == "mnt":
                call("fusermount3", "-u", "mnt")
            else:
                server.terminate()
            server.wait()
        assert names and read
        return listed, taken

    def through_hikae():
        begun = time.perf_counter()
        subprocess.run([hikae, "mount", "disk.hik@latest", "mnt"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        names = os.listdir("mnt/p1/usr")
        listed = time.perf_counter() - begun
        with open(f"mnt/p1/{path}", "rb") as file:
            read = len(file.read())
        taken = time.perf_counter() - begun
        call(hikae, "umount", "mnt")
        assert names and read
        return listed, taken

    kinds = {"hikae": through_hikae, **{f"{name}, ntfs-3g": (lambda what=what: through_ntfs_3g(*what)) for name, what in servers.items()}}
    figures = {name: [] for name in kinds}
    for number in range(options.runs + 1):
        for name, work in kinds.items():
            taken = work()
            if number:
                figures[name].append(taken)
    say(f"### From an image at rest to a file in it, NTFS disk of {size} MiB, {options.runs} runs\n")
    say("| | names of a folder ms [range] | + a file of 1 MiB ms [range] | x hikae |")
    say("|---|--:|--:|--:|")
    ours = None
    for name, taken in figures.items():
        listed, read = ([value * 1000 for value in column] for column in zip(*taken))
        middle = statistics.median(read)
        ours = ours or middle
        cells = [f"{statistics.median(values):.1f} [{min(values):.1f}-{max(values):.1f}]" for values in (listed, read)]
        say(f"| {name} | {cells[0]} | {cells[1]} | {middle / ours:.2f} |")


try:
    make_tree()
    over_generations()
    over_sizes()
    beside_others()
finally:
    subprocess.run(["umount", "-q", "-l", "in", "mnt"], stderr=subprocess.DEVNULL)
    with open(f"{report}/curves.md", "w") as file:
        file.write("\n".join(text) + "\n")
