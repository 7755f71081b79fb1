//! What a person typed or pasted into the join field.

use super::bridge::Target;

/// Tells an invitation, a token and a session name apart. The error is the key of the text under the field.
///
/// `server` is the chosen server, used for a bare session name only: a pasted link brings its own.
pub fn target(typed: &str, server: Option<&str>) -> Result<Target, &'static str> {
    let typed = typed.trim();
    let has = |part: &str, name: &str| {
        part.split(['&', '?', '#'])
            .any(|p| p.strip_prefix(name).and_then(|v| v.strip_prefix('=')).is_some_and(|v| !v.is_empty()))
    };
    let Some((scheme, rest)) = typed.split_once("://") else {
        if typed.starts_with("tok_") {
            return Ok(Target::Token(typed.to_owned()));
        }
        if typed.is_empty() || !typed.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '~')) {
            return Err("home.bad_name");
        }
        let server = server.filter(|s| !s.is_empty()).ok_or("home.need_server")?;
        return Ok(Target::Session { server: server.to_owned(), name: typed.to_owned() });
    };
    if rest.chars().any(char::is_whitespace) {
        return Err("home.bad_link");
    }
    match scheme.to_ascii_lowercase().as_str() {
        "tertulia" if has(rest, "key") => Ok(Target::Invitation(typed.to_owned())),
        "tertulia" => Err("home.bad_link"),
        "http" | "https" if has(rest, "key") => Ok(Target::Invitation(typed.to_owned())),
        "ws" | "wss" | "http" | "https" if has(rest, "token") && has(rest, "sessionId") => {
            Ok(Target::Token(typed.to_owned()))
        }
        "ws" | "wss" => Err("home.bad_link"),
        _ => Err("home.bad_scheme"),
    }
}

/// Session and server of a target, for headings. Keys and tokens stay out.
pub fn describe(target: &Target) -> (String, String) {
    match target {
        Target::Session { server, name } => (name.clone(), host_of(server)),
        Target::Hosted { name } => (name.clone(), String::new()),
        Target::Invitation(link) => {
            let rest = link.split_once("://").map_or(link.as_str(), |(_, r)| r);
            let rest = rest.split(['#', '?']).next().unwrap_or(rest);
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let room = path.trim_matches('/').rsplit('/').next().unwrap_or("").to_owned();
            (room, host_of(host))
        }
        Target::Token(link) => {
            let session = link.split(['?', '&']).find_map(|p| p.strip_prefix("sessionId=")).unwrap_or("").to_owned();
            let host = link.split_once("://").map_or("", |(_, r)| r.split(['/', '?']).next().unwrap_or(""));
            (session, host_of(host))
        }
    }
}

/// Host part of an address, without scheme, port and path.
pub fn host_of(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, r)| r);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if rest.starts_with('[') {
        return rest.split(']').next().map(|h| format!("{h}]")).unwrap_or_default();
    }
    rest.split(':').next().unwrap_or(rest).to_owned()
}

/// Whether a typed server address can be one; the scheme may be left out.
pub fn server_address(typed: &str) -> Option<String> {
    let typed = typed.trim().trim_end_matches('/');
    let full = if typed.contains("://") { typed.to_owned() } else { format!("https://{typed}") };
    let (scheme, rest) = full.split_once("://")?;
    let host = host_of(&full);
    let good = matches!(scheme, "https" | "http")
        && !host.is_empty()
        && !rest.contains(['#', '?', '@', ' '])
        && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':'));
    good.then_some(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_is_told_apart() {
        let s = Some("https://meet.example.org");
        assert!(matches!(target(" design-review ", s), Ok(Target::Session { .. })));
        assert_eq!(target("design review", s), Err("home.bad_name"));
        assert_eq!(target("x".repeat(10).as_str(), None), Err("home.need_server"));
        assert!(matches!(
            target("tertulia://192.168.1.20:4443/r#key=abc&fp=sha256:00", None),
            Ok(Target::Invitation(_))
        ));
        assert_eq!(target("tertulia://192.168.1.20:4443/r#ke", None), Err("home.bad_link"));
        assert!(matches!(target("wss://h:4443?sessionId=s&token=tok_1", None), Ok(Target::Token(_))));
        assert_eq!(target("wss://h:4443?sessionId=s&tok", None), Err("home.bad_link"));
        assert_eq!(target("javascript://x", None), Err("home.bad_scheme"));
        assert_eq!(target("file:///etc/passwd", None), Err("home.bad_scheme"));
    }

    #[test]
    fn headings_hold_no_key_and_no_token() {
        let t = Target::Invitation("tertulia://192.168.1.20:4443/design-review#key=SECRET".into());
        assert_eq!(describe(&t), ("design-review".into(), "192.168.1.20".into()));
        let t = Target::Token("wss://meet.example.org?sessionId=standup&token=tok_SECRET".into());
        assert_eq!(describe(&t), ("standup".into(), "meet.example.org".into()));
        assert_eq!(format!("{t:?}"), "Token(…)");
    }

    #[test]
    fn server_addresses() {
        assert_eq!(server_address("meet.example.org/").as_deref(), Some("https://meet.example.org"));
        assert_eq!(server_address("http://localhost:4443").as_deref(), Some("http://localhost:4443"));
        assert_eq!(server_address("ftp://x"), None);
        assert_eq!(server_address("a b"), None);
        assert_eq!(server_address(""), None);
    }
}
