//! Every string a user can see, by key. The table is `assets/locales/*.yml`; English is complete and the fallback.

use std::borrow::Cow;

#[allow(missing_docs, clippy::all)]
mod table {
    rust_i18n::i18n!("assets/locales", fallback = "en");
}

/// The text of `key` in the current language. An unknown key gives the key itself, so that nothing is silently empty;
/// a test looks every key of the sources up.
pub fn t(key: &str) -> Cow<'_, str> {
    let locale = rust_i18n::locale();
    table::_rust_i18n_try_translate(&locale, key).unwrap_or(Cow::Borrowed(key))
}

/// The text of `key` with `%{name}` replaced by values.
pub fn tv<V: AsRef<str>>(key: &str, values: &[(&str, V)]) -> String {
    let mut text = t(key).into_owned();
    for (name, value) in values {
        text = text.replace(&format!("%{{{name}}}"), &clean(value.as_ref()));
    }
    text
}

/// Chooses among `key.one`, `key.few`, `key.many`, `key.other` by the language's plural rule and fills in `%{n}`.
pub fn tn(key: &str, n: usize) -> String {
    let locale = rust_i18n::locale();
    let form = plural_form(&locale, n);
    let full = format!("{key}.{form}");
    let text = table::_rust_i18n_try_translate(&locale, &full)
        .or_else(|| table::_rust_i18n_try_translate(&locale, format!("{key}.other")))
        .unwrap_or(Cow::Borrowed(key));
    text.replace("%{n}", &n.to_string())
}

/// Whether `key` has a text.
pub fn has(key: &str) -> bool {
    table::_rust_i18n_try_translate("en", key).is_some()
}

/// Chooses the language; an unknown one falls back to English.
pub fn set_language(tag: &str) {
    let short = tag.split(['-', '_', '.']).next().unwrap_or("en").to_ascii_lowercase();
    let known = table::_rust_i18n_available_locales().iter().any(|l| l.as_ref() == short);
    rust_i18n::set_locale(if known { &short } else { "en" });
}

/// CLDR cardinal rules of the languages there are translations for.
fn plural_form(locale: &str, n: usize) -> &'static str {
    match locale {
        "ru" | "uk" => match (n % 10, n % 100) {
            (1, h) if h != 11 => "one",
            (2..=4, h) if !(12..=14).contains(&h) => "few",
            _ => "many",
        },
        "ja" | "ko" | "zh" => "other",
        _ => {
            if n == 1 {
                "one"
            } else {
                "other"
            }
        }
    }
}

/// A name or value that came from outside: control and bidirectional control characters are taken out,
/// so that it cannot turn the sentence round it, and it is cut at 200 characters.
pub fn clean(text: &str) -> String {
    let mut out: String = text
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        .take(200)
        .collect();
    if text.chars().count() > 200 {
        out.push('…');
    }
    out
}

/// `0:07`, `12:41`, `1:02:03`.
pub fn clock(seconds: u64) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_as_the_specification_writes_it() {
        assert_eq!(clock(7), "0:07");
        assert_eq!(clock(761), "12:41");
        assert_eq!(clock(3723), "1:02:03");
    }

    #[test]
    fn russian_has_three_plurals() {
        assert_eq!(plural_form("ru", 1), "one");
        assert_eq!(plural_form("ru", 22), "few");
        assert_eq!(plural_form("ru", 12), "many");
        assert_eq!(plural_form("en", 0), "other");
    }

    #[test]
    fn names_cannot_turn_the_sentence() {
        assert_eq!(clean("a\u{202e}b\nc"), "abc");
        assert_eq!(clean(&"x".repeat(10_000)).chars().count(), 201);
    }

    /// Every `t("…")`, `tv("…"` and `tn("…"` of the sources has a text.
    #[test]
    fn every_key_of_the_sources_exists() {
        let dir = std::path::Path::new(file!()).parent().map(std::path::Path::to_path_buf).unwrap_or_default();
        let dir = if dir.exists() { dir } else { std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ui") };
        let mut missing = Vec::new();
        let mut seen = 0;
        let mut folders = vec![dir];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("sources") {
                let path = entry.expect("entry").path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        for file in files {
            let source = std::fs::read_to_string(file).expect("readable");
            for (call, plural) in [("t(\"", false), ("tv(\"", false), ("tn(\"", true)] {
                for part in source.split(call).skip(1) {
                    let Some(key) = part.split('"').next() else { continue };
                    if !key.contains('.')
                        || key.contains(':')
                        || key.contains(' ')
                        || key.contains('{')
                        || key.starts_with("assets")
                        || key.ends_with('.')
                    {
                        continue;
                    }
                    seen += 1;
                    let key = if plural { format!("{key}.other") } else { key.to_owned() };
                    if !has(&key) {
                        missing.push(key);
                    }
                }
            }
        }
        assert!(seen > 20, "only {seen} keys seen");
        assert!(missing.is_empty(), "no text for {missing:?}");
    }
}
