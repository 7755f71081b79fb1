#!/usr/bin/env python3
"""Makes the font subsets of this folder and src/ui/icons.rs.

Sources, with their licences beside the results:
  Inter 4        Debian package fonts-inter (SIL OFL 1.1, LICENSE-Inter.txt)
  Phosphor 2.1   the published crate egui-phosphor 0.14, folder res/ (MIT, LICENSE-Phosphor.txt)
Tools: pip install fonttools opentype-feature-freezer

  ./make_fonts.py /usr/share/fonts/opentype/inter PATH/TO/egui-phosphor-0.14.0

Inter: Latin, Greek, Cyrillic, punctuation and arrows; tabular digits are frozen in because the toolkit cannot
switch the feature on, and timers must not wobble. Phosphor: only the names listed here.
"""
import pathlib, re, subprocess, sys, tempfile

HERE = pathlib.Path(__file__).resolve().parent
RANGES = "U+0020-024F,U+02B0-02FF,U+0300-036F,U+0370-03FF,U+0400-052F,U+1E00-1EFF,U+2000-206F,U+2070-209F,U+20A0-20BF,U+2100-214F,U+2190-21FF,U+2200-22FF,U+25A0-25FF,U+FEFF,U+FFFD"
ICONS = """arrow-clockwise arrow-left arrow-up arrow-down arrow-right arrows-out arrows-in bell broadcast camera camera-slash
caret-down caret-left caret-right caret-up cell-signal-slash chat-circle check check-circle clock-counter-clockwise
cloud-slash copy desktop dots-three eye eye-slash flip-horizontal gear-six git-merge globe grid-four hand headphones info key
link lock magnifying-glass microphone microphone-slash minus monitor-arrow-up paper-plane-right password phone phone-disconnect play
plug plugs-connected plus prohibit push-pin question screencast shield-check shield-warning sign-out sliders-horizontal
smiley speaker-high speaker-slash spinner-gap squares-four ticket trash user user-plus users users-three video-camera
video-camera-slash wall warning warning-circle wifi-slash x x-circle record hard-drives""".split()


def run(*args):
    subprocess.run([str(a) for a in args], check=True)


def inter(source):
    with tempfile.TemporaryDirectory() as tmp:
        for weight in ("Regular", "Medium", "SemiBold"):
            frozen = pathlib.Path(tmp) / f"{weight}.otf"
            run("pyftfeatfreeze", "-f", "tnum", pathlib.Path(source) / f"Inter-{weight}.otf", frozen)
            run("pyftsubset", frozen, f"--unicodes={RANGES}", "--layout-features=kern,mark,mkmk,ccmp,locl,calt",
                "--name-IDs=*", "--no-hinting", f"--output-file={HERE / f'Inter-{weight}.otf'}")


def phosphor(crate):
    crate = pathlib.Path(crate)
    text = (crate / "src/variants/codepoints.rs").read_text() if (crate / "src/variants/codepoints.rs").exists() else ""
    if "MICROPHONE" not in text:
        text = (crate / "src/variants/regular.rs").read_text()
    points = dict(re.findall(r'pub const ([A-Z0-9_]+): &str = "\\u\{([0-9A-Fa-f]+)\}"', text))
    chosen = {}
    for name in ICONS:
        const = name.upper().replace("-", "_")
        chosen[const] = points[const]
    unicodes = ",".join(f"U+{p}" for p in chosen.values())
    for source, out in (("Phosphor.ttf", "Phosphor-Regular.ttf"), ("Phosphor-Fill.ttf", "Phosphor-Fill.ttf")):
        run("pyftsubset", crate / "res" / source, f"--unicodes={unicodes}", "--layout-features=",
            "--no-hinting", f"--output-file={HERE / out}")
    lines = ["//! Icons: Phosphor 2.1 by name, drawn with the families `icons` (outline) and `icons_fill`.",
             "//!", "//! Written by `assets/fonts/make_fonts.py`; the bundled subset holds exactly these.", ""]
    for const, point in sorted(chosen.items()):
        lines += [f"/// `{const.lower().replace('_', '-')}`.", f'pub const {const}: &str = "\\u{{{point}}}";']
    (HERE.parent.parent / "src/ui/icons.rs").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    inter(sys.argv[1])
    phosphor(sys.argv[2])
