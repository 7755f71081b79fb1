//! What a host needs to be told, and what can go wrong when it starts.

use crate::protocol::Secret;
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
    /// Artificial network conditions on the media socket: only loss is simulated here.
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

/// Why a host does not start or a room is not made, in words for its user.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Somebody else has the port.
    #[error("{protocol} port {port} is in use by another program: stop that program or choose another port")]
    PortTaken {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
    },
    /// The system does not allow it.
    #[error("the system does not allow listening on {protocol} port {port}: choose a port above 1023")]
    NoPermission {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
    },
    /// Not an address of this machine.
    #[error("{0} is not an address of this machine: use 0.0.0.0 to listen on all of them")]
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
    /// Certificate or key cannot be read, made or kept.
    #[error("the certificate in {} is not usable: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The rooms of an earlier host cannot be read.
    #[error("the rooms kept in {} cannot be read: {reason}; move the file away to start without them", path.display())]
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
    Room(#[from] crate::protocol::room::RoomError),
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
}
