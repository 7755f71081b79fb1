"""Turns the raw figures of packaging/figures.sh into docs/figures.md. Nobody types a figure by hand."""
import json
import os
import sys

folder, binary = sys.argv[1], sys.argv[2]


def load(name):
    with open(os.path.join(folder, name)) as file:
        return json.load(file)


demo, join, sfu = load("f-demo.json"), load("f-join.json"), load("f-sfu.json")
received = [s for p in demo["participants"] for s in p["streams"] if s["direction"] == "recv"]
fps = sorted(s["video"]["fps"] for s in received)
errors = sum(s["video"]["pattern"]["crc_errors"] for s in received)
late = sorted(s["video"]["pattern"]["latency_ms_p95"] for s in received)
tones = sum(1 for s in received if s["audio"]["tone_hz"])
peak = max(p["process"]["rss_peak_bytes"] for p in demo["participants"]) / 2**20

print("# Figures\n")
print("Made by `make figures`; rows as in the list of figures the project is held to. Release build.\n")
print(f"Machine: {join['machine']}\n")
print("| row | what | measured | must |\n|---|---|---|---|")
print(f"| F1 | demo, 4 participants 640x360@30, 15 s: every received stream | {len(received)} streams, slowest {fps[0]:.2f} fps, {errors} CRC errors, {tones} with a tone | ≥ 28 fps, 0 errors |")
print(f"| F2 | same: capture to ready, p95 | worst stream {late[-1]:.0f} ms | ≤ 120 ms |")
print(f"| F3 | same: peak memory | {peak:.0f} MiB | ≤ 250 MiB |")
f4 = join["figures"]
print(f"| F4 | `bench join`: joined to first picture, {f4['joins']} joins | p50 {f4['p50_ms']} ms, p95 {f4['p95_ms']} ms | p50 ≤ 300, p95 ≤ 500 ms |")
for run in sfu["figures"]["forwarding"]:
    row, what = ("F5", "≤ 6 µs a packet") if run["viewers"] == 10 else ("F26", "0 lost; F5's cost")
    print(
        f"| {row} | `bench sfu`: {run['viewers']} viewers, {run['cipher']}, {run['seconds']:.0f} s: CPU of the media thread per forwarded packet "
        f"| {run['cpu_us_per_packet']:.2f} µs (a bare sendto and recvfrom: {run['floor_us']:.2f} µs), {run['packets_forwarded']} forwarded, {run['lost']} lost | {what} |"
    )
memory = sfu["figures"]["memory"]
print(f"| F6 | `bench sfu`: memory of the process, the other end of every leg included | {memory['kb_per_leg']:.0f} kB a leg, {memory['kb_per_publication']:.0f} kB a publication with its leg | ≤ 300 kB a leg, ≤ 1 MB a publication |")
window = os.path.exists(os.path.join(folder, "f-start.json")) and os.path.exists(os.path.join(folder, "f-tiles.json"))
if window:
    f7, f21 = load("f-start.json")["figures"], load("f-tiles.json")["figures"]
    print(f"| F7 | `bench start`: cold start to a usable window under software GL, {f7['starts']} starts | p50 {f7['p50_ms']:.0f} ms, worst {f7['worst_ms']} ms | ≤ 600 ms |")
    print(f"| F21 | `bench tiles`: {f21['tiles']} tiles at 30 fps, 1280x800, software GL | slowest tile {f21['slowest_tile_fps']} fps, {f21['cores']} core, window's thread p50 {f21['ui_ms_p50']} ms, p99 {f21['ui_ms_p99']} ms a frame; {f21['resting_frames_a_second']} repaints a second at rest | ≥ 29 fps, ≤ 0.6 core, p99 ≤ 6 ms, ≤ 1 |")
if os.path.exists(os.path.join(folder, "f-client.json")):
    client = load("f-client.json")["figures"]
    side, bare = client["window"], client["headless"]
    ranges = {name: f"{min(side[name]):.2f} to {max(side[name]):.2f}" if side[name] else "not compared" for name in ("cpu_ratios", "memory_ratios")}
    print(
        f"| F11 | `bench client`: 720p30 sent and received in a window under software GL, beside Chromium with openvidu-browser in the same room, {len(side['samples'])} pairs "
        f"| {side['cores']:.2f} core and {side['pss_mib']:.0f} MiB, Chromium {side['chromium_cores'] or 0:.2f} core and {side['chromium_pss_mib'] or 0:.0f} MiB; "
        f"ratios {side['cpu_ratio']} ({ranges['cpu_ratios']}) and {side['memory_ratio']} ({ranges['memory_ratios']}) | ≤ 0.6: {'met' if side['cpu_ratio'] <= 0.6 else '**missed**'}, ≤ 0.3: {'met' if side['memory_ratio'] <= 0.3 else '**missed**'} |"
    )
    print(f"| F12 | same without a window: what is not encoder or decoder | {bare['not_codec_cores'] * 100:.1f} % of a core ({bare['cores'] * 100:.1f} % in all) | ≤ 6 % |")
    for name, idle in client["idle"].items():
        # These have several timers, packets of the network, or answers of the display to wait for; each of the others has one timer.
        many = {"tertulia-net": "the network's", "tertulia": "the window's"}
        wakes = idle["wakeups_a_second"]
        thread, most = max(((n, w) for n, w in wakes.items() if n not in many), key=lambda one: one[1])
        others = ", ".join(f"{what} {wakes[n]:.0f} by all its timers and what comes in" for n, what in many.items() if wakes.get(n))
        print(
            f"| F20 | same, nobody sends, {name} | {idle['cores'] * 100:.1f} % of a core; of the threads with one timer {thread} wakes most, {most:.1f} times a second; {others} "
            f"| ≤ 3 %: {'met' if idle['cores'] <= 0.03 else '**missed**'}, no timer above 10 Hz: {'met' if most <= 10 else '**missed**'} |"
        )
hd = load("f-latency.json")["figures"]
print(f"| F8 | `bench latency`: 720p30, clean link, {hd['seconds']} s: capture to ready | p50 {hd['latency_ms_p50']:.0f} ms, p95 {hd['latency_ms_p95']:.0f} ms | p50 ≤ 40, p95 ≤ 70 ms |")
print(f"| F10 | same: first frame to 720p | {hd['time_to_720p_ms']} ms, target {hd['target_bitrate_bps'] / 1000:.0f} kbit/s at the end | ≤ 1 s |")
sound = load("f-audio.json")["figures"]
for run in sound["F9"] or []:
    where = f"`{run['network']}`" if run["network"] else "LAN"
    if run["p50_ms"] is None:
        print(f"| F9 | `bench audio`: mouth to ear through virtual devices, {where} | not one of {run['chirps']} chirps heard | ≤ {run['must_ms']} ms: {'met' if run['p50_ms'] <= run['must_ms'] else '**missed**'} |")
        continue
    print(
        f"| F9 | `bench audio`: mouth to ear through virtual devices, {where} | p50 {run['p50_ms']:.0f} ms, p95 {run['p95_ms']:.0f} ms, "
        f"{run['heard']} of {run['chirps']} chirps heard | ≤ {run['must_ms']} ms: {'met' if run['p50_ms'] <= run['must_ms'] else '**missed**'} |"
    )
f18 = sound["F18"]
print(
    f"| F18 | `bench audio`: echo over 60 ms and a room of 120 ms | {f18['reduced_db']['0-2 s']:.0f} dB in the first 2 s, {f18['reduced_db']['2-5 s']:.0f} to 5 s, {f18['reduced_db']['5-12 s']:.0f} after; "
    f"the canceller alone {f18['reduced_db_canceller_alone']:.0f}; near end {f18['near_end_db']:+.1f} dB | ≥ 40 dB after 5 s, near end within 1 dB |"
)
for run in sound["F19"]:
    print(
        f"| F19 | `bench audio`: microphone {run['microphone_ppm']:+.0f} ppm, speaker {run['speaker_ppm']:+.0f} ppm, {run['seconds'] // 60} minutes of virtual time "
        f"| {run['missing_frames']} frames missing, delay {run['delay_ms_least']:.0f} to {run['delay_ms_most']:.0f} ms, {run['concealed_ms']} ms concealed | no under-run, constant within 10 ms |"
    )
screen = load("f-screen.json")["figures"]
pages = screen["pages"]
sharp = "never" if any(p["sharp_ms"] is None for p in pages) else f"{max(p['sharp_ms'] for p in pages)} ms"
first = "never" if any(p["first_ms"] is None for p in pages) else f"{max(p['first_ms'] for p in pages)} ms"
print(
    f"| F28 | `bench screen`: shared page of text, {screen['size']}, at 1.5 Mbit/s, {len(pages)} pages: slowest at the viewer | seen after {first}, {screen['sharp_db']:.0f} dB after {sharp}, at the end "
    f"{min(p['psnr_db'] for p in pages)} dB; {max(p['pictures_when_still'] for p in pages)} pictures while it stands still | ≤ 2 s: {'met' if all(p['sharp_ms'] is not None and p['sharp_ms'] <= 2000 for p in pages) else '**missed**'} |"
)


def verdict(text, *held):
    """What must hold, and whether it does."""
    return f"{text}: {'met' if all(held) else '**missed**'}"


def must(row, fps, freeze_ms, seconds, concealed):
    """Limits of the lossy rows; whoever has none is described by its numbers only."""
    minute = freeze_ms * 60 / seconds
    if row.startswith("F13"):
        return verdict("freezes ≤ 1 s a minute, sound ≥ 98 %", minute <= 1000, concealed <= 2)
    if row.startswith("F14"):
        return verdict("≥ 24 fps, ≤ 3 % concealed", fps >= 24, concealed <= 3)
    if row.startswith("F15"):
        return verdict("≤ 12 % concealed, no end", fps > 0, concealed <= 12)
    return "described by the rows of the switch below"


def scenario(run, fps, concealed):
    """Limits of a network scenario."""
    name = run["row"].split()[0]
    if name == "N5":
        return verdict(f"a picture ≤ 10 s after the program's start ({run['connected_s']:.1f} s), sound goes on", run["connected_s"] <= 10, concealed <= 1)
    rung = int(name.removeprefix("N6."))
    if rung <= 4:
        return verdict("a moving picture", fps >= 20)
    if rung == 5:
        return verdict("≤ 5 % concealed", concealed <= 5)
    return verdict("not dropped" if rung <= 7 else "it ends cleanly or goes on", fps > 0 or concealed < 100)


for run in load("f-network.json")["figures"]:
    concealed = run["audio_concealed_ms"] / run["seconds"] / 10
    print(
        f"| {run['row']} | `bench network`: {run['leg']}'s leg `{run['network']}`, {run['size']}, {run['seconds']} s "
        f"| {run['fps']:.1f} fps, {run['freezes']} freezes ({run['freeze_ms']} ms), {run['crc_errors']} CRC errors, latency p50 {run['latency_ms_p50']:.0f} p95 {run['latency_ms_p95']:.0f} ms, "
        f"{run['sent_bps'] / 1000:.0f} kbit/s of pictures sent, sound concealed {concealed:.1f} %, its delay {run['audio_playout_delay_ms']:.0f} ms "
        f"| {must(run['row'], run['fps'], run['freeze_ms'], run['seconds'], concealed)} |"
    )
print(f"| F7 | stripped binary | {os.path.getsize(binary) / 1e6:.1f} MB | ≤ 40 MB |")
if os.path.exists(os.path.join(folder, "f-netns.json")):
    print("\n## Over the switch between network namespaces\n")
    print("`make network`: the same program as processes, each in its own namespace, joined by `tests/netns/wire.c`. An independent witness: its links are none of ours. What is sent counts all bytes of the link; the test picture does not need 2.5 Mbit/s, so how much of a path is found shows in the target, which is the picture's alone (sound, headers and repeats beside it). Rows with N are the network scenarios of the same list; delays of N6 are round trips, and the viewer's leg is the bad one.\n")
    print("| row | links | measured | must |\n|---|---|---|---|")
    for run in load("f-netns.json"):
        video, audio = run["video"], run["audio"]
        concealed = (audio["concealed_ms"] or 0) / run["seconds"] / 10
        changes = "".join(f"; at {at:.0f} s {link}" for at, link in run["changes"])
        limit = must(run["row"], video["fps"] or 0, video["freeze_ms"] or 0, run["seconds"], concealed)
        phases = ""
        for p in run["phases"]:
            targets = p["target_bps"][len(p["target_bps"]) // 2:]
            p["share"] = sum(targets) / max(len(targets), 1) / p["kbps"] / 1e3
            sender = run["links"][0].startswith("pub")
            after = f", right after {p['right_after_s']:.1f} s" if p["right_after_s"] is not None else ", never right"
            target = f"the picture's target {p['share'] * 100:.0f} % of it{after}, " if sender else ""
            phases += f"; {p['kbps']:.0f} kbit/s: {target}{p['used'] * 100:.0f} % sent, queue p95 {p['queue_ms_p95']:.0f} ms"
        if run["row"].startswith("F17"):
            seconds = [p["to_s"] - p["from_s"] for p in run["phases"]]
            # A source that always has something to send is what the row means; ours has a test picture.
            member = "share" if run["links"][0].startswith("pub") else "used"
            used = sum(p[member] * p["kbps"] * s for p, s in zip(run["phases"], seconds)) / sum(p["kbps"] * s for p, s in zip(run["phases"], seconds))
            queue = max(p["queue_ms_p95"] for p in run["phases"])
            limit = verdict(f"≥ 80 % used ({used * 100:.0f} % in all), queue p95 ≤ 100 ms, ≤ 5 s down, ≤ 10 s up", used >= 0.8, queue <= 100, all((p["right_after_s"] or 0) <= 10 for p in run["phases"]))
        elif run["row"].startswith("F10"):
            limit = verdict("720p ≤ 4 s", (video["time_to_720p_ms"] or 1e9) <= 4000)
        elif run["row"].startswith("N"):
            limit = scenario(run, video["fps"] or 0, concealed)
        elif run["row"].startswith("F16"):
            limit = f"held {max(run['held_ms']):.0f} ms at most, {run['held_ms'][-1]:.0f} at the end (≤ p95 of the jitter + 20 ms)"
        tall = f"720p after {video['time_to_720p_ms']} ms, " if video["time_to_720p_ms"] else ""
        print(
            f"| {run['row']} | {'; '.join(run['links'])}{changes}; {run['size']}, {run['seconds']:.0f} s, seed {run['seed']} "
            f"| {video['fps']:.1f} fps, {video['freezes']} freezes ({video['freeze_ms']} ms), {video['pattern']['crc_errors']} CRC errors, latency p50 {video['pattern']['latency_ms_p50']:.0f} p95 {video['pattern']['latency_ms_p95']:.0f} ms, "
            f"{tall}sound concealed {concealed:.1f} %, lips {audio['av_offset_ms'] or 0:.0f} ms{phases} | {limit} |"
        )
print("\nRaw samples of `bench join` in ms: " + ", ".join(str(s) for s in f4["samples_ms"]) + ".\n")
if window:
    print("Raw samples of `bench start` in ms: " + ", ".join(str(s) for s in f7["samples_ms"]) + ".\n")
    print("Not measured yet: every row of later slices.")
else:
    print("Not measured: F7's cold start and F21 (no virtual display), and every row of later slices.")
