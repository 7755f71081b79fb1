//! A description as lines: one session part and one section per m-line.

/// Lines of one part of a description, without line ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// The lines in order; for a media section the first one is its m-line.
    pub lines: Vec<String>,
}

/// A session description split at its m-lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Everything before the first m-line.
    pub session: Section,
    /// One section per m-line.
    pub media: Vec<Section>,
}

impl Description {
    /// Splits `text` at its m-lines. Any line end is accepted, empty lines are dropped.
    pub fn parse(text: &str) -> Self {
        let mut description = Self::default();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            if line.starts_with("m=") {
                description.media.push(Section::default());
            }
            description.media.last_mut().unwrap_or(&mut description.session).lines.push(line.to_owned());
        }
        description
    }

    /// The text with CRLF line ends, as RFC 8866 wants it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for section in std::iter::once(&self.session).chain(&self.media) {
            for line in &section.lines {
                text.push_str(line);
                text.push_str("\r\n");
            }
        }
        text
    }
}

impl Section {
    /// Values of every `a=name:value` line, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.lines.iter().filter_map(move |line| attribute_value(line, name))
    }

    /// The first `a=name:value`.
    pub fn value<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// Whether an `a=name` or `a=name:…` line exists.
    pub fn has(&self, name: &str) -> bool {
        self.lines.iter().any(|line| attribute_name(line) == Some(name))
    }

    /// Removes every `a=name` and `a=name:…` line.
    pub fn remove(&mut self, name: &str) {
        self.lines.retain(|line| attribute_name(line) != Some(name));
    }

    /// The fields of the m-line: kind, port, protocol and formats. Empty for the session part.
    pub fn m_fields(&self) -> Vec<&str> {
        self.lines
            .first()
            .and_then(|line| line.strip_prefix("m="))
            .map(|rest| rest.split_ascii_whitespace().collect())
            .unwrap_or_default()
    }

    /// The media kind of the m-line, `audio`, `video` or `application`; empty for the session part.
    pub fn kind(&self) -> &str {
        self.m_fields().first().copied().unwrap_or_default()
    }

    /// Whether the m-line is refused: its port is 0 (RFC 3264 §6).
    pub fn is_refused(&self) -> bool {
        self.m_fields().get(1) == Some(&"0")
    }

    /// The payload types of the m-line that are numbers.
    pub fn payload_types(&self) -> Vec<u8> {
        self.m_fields().iter().skip(3).filter_map(|field| field.parse().ok()).collect()
    }

    /// Writes the format list of the m-line anew and keeps kind, port and protocol.
    pub fn set_payload_types(&mut self, payload_types: &[u8]) {
        let mut line = format!("m={}", self.m_fields().into_iter().take(3).collect::<Vec<_>>().join(" "));
        for payload_type in payload_types {
            line.push_str(&format!(" {payload_type}"));
        }
        if let Some(first) = self.lines.first_mut().filter(|first| first.starts_with("m=")) {
            *first = line;
        }
    }

    /// Inserts `line` after the last line that carries attribute `name`, or at the end.
    pub fn insert_after(&mut self, name: &str, line: String) {
        let at = self
            .lines
            .iter()
            .rposition(|existing| attribute_name(existing) == Some(name))
            .map_or(self.lines.len(), |position| position + 1);
        self.lines.insert(at, line);
    }
}

/// The name of an attribute line: `mid` for `a=mid:0`.
pub(super) fn attribute_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("a=")?;
    Some(rest.split_once(':').map_or(rest, |(name, _)| name))
}

/// The value of an `a=name:value` line of that name.
pub(super) fn attribute_value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':')
}

/// The payload type that an `a=rtpmap`, `a=fmtp` or `a=rtcp-fb` line is about; none for `a=rtcp-fb:*`.
pub(super) fn payload_type_of(line: &str) -> Option<u8> {
    ["rtpmap", "fmtp", "rtcp-fb"]
        .iter()
        .find_map(|name| attribute_value(line, name))
        .and_then(|value| value.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
}
