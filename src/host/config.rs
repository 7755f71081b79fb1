//! What a host needs to be told, and what can go wrong when it starts.

use crate::protocol::Secret;
use crate::protocol::room::RoomError;
use crate::wire::netsim::Impairments;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Port of TCP and UDP unless told otherwise.
pub const DEFAULT_PORT: u16 = 4443;

/// Whether and with which certificate TLS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    /// A self-signed certificate, made once and kept in [`HostConfig::data_dir`] with mode 0600.
    #[default]
    SelfSigned,
    /// None: for loopback and tests.
    None,
}

/// Settings of a host.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// TCP address of REST and WebSocket; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Port of all media; the TCP port's number by default.
    pub udp_port: Option<u16>,
    /// Password of the user `OPENVIDUAPP`; a random one, known to nobody, by default.
    pub secret: Option<Secret>,
    /// TLS.
    pub tls: Tls,
    /// Where certificate and its key are kept.
    pub data_dir: PathBuf,
    /// Keep rooms and their keys (digests of them) there too: invitations then outlive a restart.
    pub keep_rooms: bool,
    /// Sessions to create at the start.
    pub sessions: Vec<String>,
    /// `https://host[:port]` written into tokens and invitations; by default the address others on the local network reach.
    pub public_url: Option<String>,
    /// Addresses offered for media; by default those of the interfaces that are listened on.
    pub advertised: Vec<IpAddr>,
    /// Artificial network conditions on the media socket.
    pub impairments: Option<Impairments>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
            udp_port: None,
            secret: None,
            tls: Tls::default(),
            data_dir: PathBuf::new(),
            keep_rooms: false,
            sessions: Vec::new(),
            public_url: None,
            advertised: Vec::new(),
            impairments: None,
        }
    }
}

/// Why a host does not start or a room is not made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Somebody else has the port.
    #[error("{protocol} port {port} is in use by another program")]
    PortTaken {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
    },
    /// The system does not allow it.
    #[error("the system does not allow listening on {protocol} port {port}")]
    NoPermission {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
    },
    /// Not an address of this machine.
    #[error("{0} is not an address of this machine")]
    NoSuchAddress(IpAddr),
    /// The port cannot be opened for another reason.
    #[error("cannot listen on {protocol} {addr}: {source}")]
    Listen {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Certificate or key cannot be made or kept.
    #[error("the certificate cannot be kept in {}: {reason}", path.display())]
    DataDir {
        /// Folder or file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// Certificate or key are there and cannot be used.
    #[error("the certificate in {} is not usable: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The rooms of an earlier host cannot be read.
    #[error("the rooms kept in {} cannot be read: {reason}", path.display())]
    Rooms {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The media thread does not start.
    #[error("the media thread does not start: {0}")]
    Media(String),
    /// The control thread does not start or has ended.
    #[error("the host is not running (any more)")]
    NotRunning,
    /// A room cannot be made.
    #[error("{0}")]
    Room(#[from] RoomError),
}

impl HostError {
    pub(super) fn listen(protocol: &'static str, addr: SocketAddr, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::AddrInUse => Self::PortTaken { protocol, port: addr.port() },
            std::io::ErrorKind::PermissionDenied => Self::NoPermission { protocol, port: addr.port() },
            std::io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress(addr.ip()),
            _ => Self::Listen { protocol, addr, source },
        }
    }

    /// Key of the text on the screen (`docs/failures.md`).
    pub fn key(&self) -> &'static str {
        use std::io::ErrorKind::{NetworkDown, NetworkUnreachable};
        match self {
            Self::PortTaken { protocol: "UDP", .. } => "err.port_udp",
            Self::PortTaken { .. } => "err.port",
            Self::NoPermission { .. } => "err.port_denied",
            Self::NoSuchAddress(_) => "err.host_address",
            Self::Listen { source, .. } if matches!(source.kind(), NetworkDown | NetworkUnreachable) => "err.host_net",
            Self::Listen { .. } => "err.host_listen",
            Self::DataDir { .. } => "err.host_dir",
            Self::Certificate { .. } => "err.host_cert",
            Self::Rooms { .. } => "err.host_rooms",
            Self::Media(_) | Self::NotRunning => "err.host_start",
            Self::Room(RoomError::Name) => "err.room_name",
            Self::Room(RoomError::Full) => "err.host_full",
        }
    }

    /// What to do about it, one line for the command line.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::PortTaken { protocol: "UDP", .. } => "stop that program or choose another port with --udp-port",
            Self::PortTaken { .. } => "stop that program or choose another port with --listen",
            Self::NoPermission { .. } => "choose a port above 1023",
            Self::NoSuchAddress(_) => "use 0.0.0.0 to listen on all of them",
            Self::Listen { .. } => "connect to a network, or listen on 127.0.0.1",
            Self::DataDir { .. } => "make it writable, or name another folder with --data-dir",
            Self::Certificate { .. } => "move the file away to have a new one made; old invitations then end",
            Self::Rooms { .. } => "move the file away to start without its rooms; their invitations then end",
            Self::Media(_) | Self::NotRunning => "try again",
            Self::Room(RoomError::Name) => "choose another name",
            Self::Room(RoomError::Full) => "close a room first",
        }
    }

    /// Values for the `%{}` of the text.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::PortTaken { port, .. } | Self::NoPermission { port, .. } => {
                // What is above 1023 anybody may use; below it the next one is as forbidden as this.
                let next = if *port < 1024 { DEFAULT_PORT } else { port.saturating_add(1) };
                vec![("port", port.to_string()), ("next", next.to_string())]
            }
            Self::NoSuchAddress(address) => vec![("addr", address.to_string())],
            Self::Listen { addr, .. } => vec![("port", addr.port().to_string())],
            Self::DataDir { path, .. } | Self::Certificate { path, .. } | Self::Rooms { path, .. } => {
                vec![("path", path.display().to_string())]
            }
            Self::Media(_) | Self::NotRunning | Self::Room(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn causes_of_a_port_that_does_not_open_are_told_apart() {
        let addr = SocketAddr::from(([10, 0, 0, 1], 443));
        let key = |protocol, kind: ErrorKind| HostError::listen(protocol, addr, Error::from(kind)).key();
        assert_eq!(key("TCP", ErrorKind::AddrInUse), "err.port");
        assert_eq!(key("UDP", ErrorKind::AddrInUse), "err.port_udp");
        assert_eq!(key("TCP", ErrorKind::PermissionDenied), "err.port_denied");
        assert_eq!(key("TCP", ErrorKind::AddrNotAvailable), "err.host_address");
        assert_eq!(key("UDP", ErrorKind::NetworkUnreachable), "err.host_net");
        assert_eq!(key("TCP", ErrorKind::OutOfMemory), "err.host_listen");
        let denied = HostError::listen("TCP", addr, Error::from(ErrorKind::PermissionDenied));
        assert_eq!(denied.values(), [("port", "443".to_owned()), ("next", "4443".to_owned())]);
    }
}
