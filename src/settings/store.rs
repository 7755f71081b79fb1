//! The settings file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::{Table, Value};

/// Most sessions remembered.
const RECENT_LIMIT: usize = 20;

/// Why settings could not be read or written.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// No home folder to keep them in.
    #[error("this system names no folder for settings; give one with --config")]
    NoFolder,
    /// The file or folder cannot be used.
    #[error("the settings in {path} cannot be used: {cause}")]
    File {
        /// Which file.
        path: String,
        /// The system's words.
        cause: String,
    },
}

/// Which palette.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// As the desktop says.
    #[default]
    System,
    /// Dark.
    Dark,
    /// Light.
    Light,
}

/// Chosen devices in the notation of the command line; absent is the system's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Camera SOURCE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// Microphone SOURCE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microphone: Option<String>,
    /// Speaker SINK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
}

/// A session joined before. Neither token nor key is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecentSession {
    /// Session name.
    pub session: String,
    /// Host part of the server.
    pub host: String,
    /// Unix time of the last visit, in ms.
    pub at_unix_ms: u64,
}

/// A server that sessions can be joined on by name. Its secret is kept elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownServer {
    /// Base address.
    pub url: String,
    /// The user allowed this one server's own certificate.
    pub own_certificate: bool,
}

/// Everything remembered between starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Own name.
    pub name: String,
    /// Name offered for a room started here.
    pub room_name: String,
    /// Random key of this installation: others recognise us by it after a reconnection.
    pub device_key: String,
    /// Language tag, empty for the system's.
    pub language: String,
    /// Palette.
    pub theme: Theme,
    /// Join with the microphone muted.
    pub join_muted: bool,
    /// Join with the camera off.
    pub join_without_camera: bool,
    /// Mirror the own picture for oneself.
    pub mirror: bool,
    /// Known servers, the chosen one first.
    pub servers: Vec<KnownServer>,
    /// Devices.
    pub devices: Device,
    /// Newest first.
    pub recent: Vec<RecentSession>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            room_name: String::new(),
            device_key: String::new(),
            language: String::new(),
            theme: Theme::System,
            join_muted: false,
            join_without_camera: false,
            mirror: true,
            servers: Vec::new(),
            devices: Device::default(),
            recent: Vec::new(),
        }
    }
}

impl Settings {
    /// Puts a session in front of the recent ones.
    pub fn visited(&mut self, visit: RecentSession) {
        self.recent.retain(|r| (r.session != visit.session) || (r.host != visit.host));
        self.recent.insert(0, visit);
        self.recent.truncate(RECENT_LIMIT);
    }
}

/// The file the settings live in.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The file in `folder`, or in the system's folder for settings.
    ///
    /// # Errors
    /// The system names none.
    pub fn open(folder: Option<&Path>) -> Result<Self, SettingsError> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => directories::ProjectDirs::from("", "", "tertulia")
                .ok_or(SettingsError::NoFolder)?
                .config_dir()
                .to_owned(),
        };
        Ok(Self { path: folder.join("settings.toml") })
    }

    /// The folder, for what else is kept beside (certificate, rooms).
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Reads. A missing file gives the defaults; members that do not fit are left at their default, the rest is kept.
    ///
    /// # Errors
    /// The file is there but cannot be read or is no TOML.
    pub fn load(&self) -> Result<Settings, SettingsError> {
        let table = self.table()?;
        let defaults = Value::try_from(Settings::default()).ok();
        // Member by member: one bad value must not cost all the others.
        let mut kept = Table::new();
        for (key, value) in table {
            let mut one = defaults.as_ref().and_then(Value::as_table).cloned().unwrap_or_default();
            one.insert(key.clone(), value.clone());
            if Settings::deserialize(Value::Table(one)).is_ok() {
                kept.insert(key, value);
            }
        }
        Settings::deserialize(Value::Table(kept)).map_err(|e| self.error(e))
    }

    /// Writes; members this version does not know stay in the file.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn save(&self, settings: &Settings) -> Result<(), SettingsError> {
        let mut table = self.table().unwrap_or_default();
        let ours = Table::try_from(settings).map_err(|e| self.error(e))?;
        table.extend(ours);
        let text = toml::to_string_pretty(&table).map_err(|e| self.error(e))?;
        std::fs::create_dir_all(self.folder()).map_err(|e| self.error(e))?;
        let mut file = tempfile::NamedTempFile::new_in(self.folder()).map_err(|e| self.error(e))?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(|e| self.error(e))?;
        file.persist(&self.path).map_err(|e| self.error(e))?;
        Ok(())
    }

    fn table(&self) -> Result<Table, SettingsError> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => text.parse::<Table>().map_err(|e| self.error(e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Table::new()),
            Err(e) => Err(self.error(e)),
        }
    }

    fn error(&self, cause: impl std::fmt::Display) -> SettingsError {
        SettingsError::File { path: self.path.display().to_string(), cause: cause.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_survive_and_bad_ones_cost_only_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Some(folder.path())).unwrap();
        assert_eq!(store.load().unwrap(), Settings::default());
        std::fs::write(folder.path().join("settings.toml"), "name = \"Ines\"\ntheme = 7\nfrom_the_future = [1, 2]\n")
            .unwrap();
        let mut settings = store.load().unwrap();
        assert_eq!((settings.name.as_str(), settings.theme), ("Ines", Theme::System));
        settings.name = "Noor".into();
        store.save(&settings).unwrap();
        let text = std::fs::read_to_string(folder.path().join("settings.toml")).unwrap();
        assert!(text.contains("from_the_future") && text.contains("Noor"), "{text}");
        assert_eq!(store.load().unwrap(), settings);
    }

    #[test]
    fn a_broken_file_is_an_error_and_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Some(folder.path())).unwrap();
        std::fs::write(folder.path().join("settings.toml"), "name = ").unwrap();
        assert!(store.load().is_err());
    }

    #[test]
    fn recent_sessions_are_unique_and_bounded() {
        let mut settings = Settings::default();
        for i in 0..40 {
            settings.visited(RecentSession { session: format!("s{}", i % 30), host: "h".into(), at_unix_ms: i });
        }
        assert_eq!(settings.recent.len(), RECENT_LIMIT);
        assert_eq!(settings.recent[0].session, "s9");
    }
}
