//! What desktops are told about the program agrees with Cargo.toml.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::Command;

const ID: &str = "org.tertulia.Tertulia";

fn packaging() -> PathBuf {
    // The test's own place in the tree, so that it also works from a copied manifest.
    let here = Path::new(file!()).parent().map(|p| p.join("../packaging")).filter(|p| p.exists());
    let folder = here.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging"));
    folder.canonicalize().expect("there")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(packaging().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn entry<'a>(desktop: &'a str, key: &str) -> &'a str {
    desktop
        .lines()
        .find_map(|l| l.strip_prefix(key).and_then(|l| l.strip_prefix('=')))
        .unwrap_or_else(|| panic!("no {key}"))
}

fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no <{name}>"));
    rest.split_once(&format!("</{name}>")).unwrap_or_else(|| panic!("open <{name}>")).0
}

#[test]
fn desktop_entry_and_metainfo_agree_with_the_package() {
    let desktop = read(&format!("{ID}.desktop"));
    let meta = read(&format!("{ID}.metainfo.xml"));
    let program = env!("CARGO_PKG_NAME");
    assert_eq!(entry(&desktop, "Exec"), format!("{program} %u"));
    assert_eq!(entry(&desktop, "TryExec"), program);
    assert_eq!(entry(&desktop, "Icon"), ID);
    assert_eq!(entry(&desktop, "MimeType"), "x-scheme-handler/tertulia;");
    assert_eq!(element(&meta, "id"), ID);
    assert_eq!(element(&meta, "name"), entry(&desktop, "Name"));
    assert_eq!(element(&meta, "name").to_lowercase(), program);
    assert_eq!(element(&meta, "binary"), program);
    assert_eq!(element(&meta, "project_license"), env!("CARGO_PKG_LICENSE"));
    assert!(meta.contains(&format!(">{ID}.desktop</launchable>")));
    let newest = format!("<release version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let first = meta.split_once("<releases>").map_or("", |(_, r)| r.trim_start());
    assert!(first.starts_with(&newest), "the newest release is not {}", env!("CARGO_PKG_VERSION"));
    // The window carries the id, so that desktops find its entry.
    let app = std::fs::read_to_string(packaging().join("../src/ui/app.rs")).expect("source");
    assert!(app.contains(&format!("with_app_id(\"{ID}\")")));
    assert_eq!(entry(&desktop, "StartupWMClass"), ID);
}

#[test]
fn icons_have_their_sizes() {
    assert!(read(&format!("icons/{ID}.svg")).contains("<svg"));
    for size in [16, 24, 32, 48, 64, 128, 256, 512] {
        let file = std::fs::File::open(packaging().join(format!("icons/{ID}-{size}.png"))).expect("there");
        let reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().expect("a PNG");
        assert_eq!((reader.info().width, reader.info().height), (size, size));
    }
}

#[test]
fn the_validators_are_content_where_they_are_installed() {
    let files = [
        ("desktop-file-validate", vec![], format!("{ID}.desktop")),
        ("appstreamcli", vec!["validate", "--no-net"], format!("{ID}.metainfo.xml")),
    ];
    for (tool, args, file) in files {
        match Command::new(tool).args(args).arg(packaging().join(&file)).output() {
            Ok(out) => assert!(
                out.status.success(),
                "{tool}: {}{}",
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            ),
            Err(_) => eprintln!("{tool} is not installed: {file} was not validated"),
        }
    }
}
